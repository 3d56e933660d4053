//! Who hears of a shard's reports.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use shardwise_client::Access;
use shardwise_monitor::{Collector, Envelope, LoadFormula, OtherResources, Standing};
use tracing::{info, warn};

use super::clock;
use super::workers::Workers;

/// Where routers take reports.
const PATH: &str = "/v1/reports";
/// A router that does not take a report within this misses it: the next one is on its way.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Takes the reports of a shard; it is called from a thread that does nothing else, and may take its time.
pub trait Publish: Send {
    /// Takes one report.
    fn publish(&mut self, envelope: &Envelope);
}

impl<F: FnMut(&Envelope) + Send> Publish for F {
    fn publish(&mut self, envelope: &Envelope) {
        self(envelope);
    }
}

/// Posts reports to routers, one after the other. A router that cannot be reached misses the report.
pub struct HttpPublisher {
    agent: ureq::Agent,
    access: Access,
    routers: Vec<Router>,
}

struct Router {
    url: String,
    reached: bool,
}

impl HttpPublisher {
    /// Posts to the routers at these addresses, written as `http://host:port` or `https://host:port`, with what they ask of
    /// their clients.
    pub fn new(routers: &[String], access: Access) -> Self {
        let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(TIMEOUT)).build();
        let router = |url: &String| Router { url: format!("{}{PATH}", url.trim_end_matches('/')), reached: true };
        Self { agent: access.agent(config), access, routers: routers.iter().map(router).collect() }
    }
}

impl Publish for HttpPublisher {
    fn publish(&mut self, envelope: &Envelope) {
        let body = serde_json::to_string(envelope).expect("a report has nothing that JSON lacks");
        for router in &mut self.routers {
            let request = self.access.sign(self.agent.post(&router.url));
            let answer = request.content_type("application/json").send(&body);
            match (&answer, router.reached) {
                (Err(error), true) => warn!(router = router.url, %error, "reports do not reach the router"),
                (Ok(_), false) => info!(router = router.url, "reports reach the router again"),
                _ => {}
            }
            router.reached = answer.is_ok();
        }
    }
}

/// Who reports: the machine and the functions as the collector sees them, and the cores as the workers do.
pub(super) struct Reporter {
    pub(super) collector: Collector,
    pub(super) cores: f32,
    pub(super) every: Duration,
}

impl Reporter {
    /// Reports at once and then every so often, until the sender of `ended` is gone; then once more.
    pub(super) fn run(mut self, workers: &Workers, publish: &mut dyn Publish, ended: &Receiver<()>) {
        let started = clock::now();
        let mut due = started;
        loop {
            publish.publish(&self.envelope(workers, started));
            // What took too long to publish is not made up for.
            due = (due + self.every).max(clock::now());
            let wait = due.saturating_duration_since(clock::now());
            if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return publish.publish(&self.envelope(workers, started));
            }
        }
    }

    /// The workers say how busy the cores are that they emulate; the process does something else meanwhile.
    fn envelope(&mut self, workers: &Workers, started: Instant) -> Envelope {
        let now = clock::now();
        let report = workers.report(now);
        let since_boot = now.saturating_duration_since(started);
        let mut envelope = self.collector.collect(report.event_at, since_boot, report.healthy);
        envelope.standing = Standing::of(LoadFormula::default(), &report, self.cores, OtherResources::default());
        envelope.report = report;
        envelope
    }
}
