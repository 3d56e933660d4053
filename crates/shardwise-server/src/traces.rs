//! Spans of requests for an OpenTelemetry collector: when a request came, what was decided and why, under the trace of its caller.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use crate::http::App;
use crate::live::{Answer, Said};

/// What spans are made by, and sent.
pub(crate) struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

/// What a decision says in the span of its request.
#[derive(Clone)]
pub(crate) struct Told(Vec<KeyValue>);

impl Told {
    pub(crate) fn of(answer: &Answer) -> Self {
        let (shard, decided_by, reason) = match &answer.said {
            Said::Prediction(said) => (&said.recommended_shard, said.decided_by, said.fallback_reason),
            Said::Plain { recommended_shard, decided_by, fallback_reason, .. } => {
                (recommended_shard, *decided_by, *fallback_reason)
            }
        };
        let reason = reason.map(|reason| KeyValue::new("shardwise.fallback_reason", reason.as_str()));
        let told = [
            KeyValue::new("shardwise.decision_id", answer.decision_id.clone()),
            KeyValue::new("shardwise.shard", shard.as_str().to_owned()),
            KeyValue::new("shardwise.decided_by", decided_by.as_str()),
        ];
        Self(told.into_iter().chain(reason).collect())
    }
}

impl Traces {
    /// Sends to a collector, from a thread of its own. One that does not answer misses spans, which is said in the log.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn start(endpoint: &str, share: f64, router: &str) -> Result<Self, String> {
        let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().new_agent();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender(agent))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .build()
            .map_err(|error| error.to_string())?;
        let instance = KeyValue::new("service.instance.id", router.to_owned());
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(Resource::builder().with_service_name("shardwise").with_attribute(instance).build())
            .build();
        Ok(Self { tracer: provider.tracer("shardwise-server"), provider })
    }

    /// Sends what waits; it blocks.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }

    fn parent(request: &Request) -> Context {
        TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()))
    }
}

/// Makes a span of a request, in the trace that its `traceparent` names.
pub(crate) async fn follow(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(traces) = &app.traces else { return next.run(request).await };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let mut span = traces
        .tracer
        .span_builder(format!("{} {route}", request.method()))
        .with_kind(SpanKind::Server)
        .with_attributes([KeyValue::new("http.route", route)])
        .start_with_context(&traces.tracer, &Traces::parent(&request));
    let mut response = next.run(request).await;
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if let Some(Some(Told(told))) = response.extensions_mut().remove::<Option<Told>>() {
        span.set_attributes(told);
    }
    if status.is_server_error() {
        span.set_status(Status::error(status.to_string()));
    }
    span.end();
    response
}

/// The HTTP client that everything else here has, too. It blocks, on the exporter's own thread.
#[derive(Debug)]
struct Sender(ureq::Agent);

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(
        &self,
        request: opentelemetry_http::Request<Bytes>,
    ) -> Result<opentelemetry_http::Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut response = self.0.run(opentelemetry_http::Request::from_parts(head, body.to_vec()))?;
        let body = response.body_mut().read_to_vec()?;
        let (head, _) = response.into_parts();
        Ok(opentelemetry_http::Response::from_parts(head, body.into()))
    }
}
