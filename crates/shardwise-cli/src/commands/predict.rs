//! `shardwise predict`: one decision from files.

use std::path::Path;
use std::sync::{Arc, Mutex};

use miette::{IntoDiagnostic, miette};
use shardwise_evaluation::visible;
use shardwise_features::{DecisionContext, RouterState};
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::{CHAMPION, ModelBundle, Registry};
use shardwise_policies::{Runtime, Strategies, StrategiesConfig};
use shardwise_types::{FleetSnapshot, InvalidInput, MarketSnapshot, PlacementRequest, ShardPrediction, Timestamp};

use super::{files, keys, onnx};
use crate::arguments::{PredictArguments, StrategiesArguments};
use crate::output;

pub(crate) fn run(options: &PredictArguments, json: bool) -> miette::Result<()> {
    let registry = Registry::open(&options.models, &options.name).into_diagnostic()?;
    let mut bundle = registry.load_trusted(CHAMPION, &keys::policy(&options.trust)?).into_diagnostic()?;
    if let Some(file) = &options.onnx {
        let (_, model) = onnx::open(file, options.any_features)?;
        let errors = onnx::errors_of(&model)?;
        bundle = onnx::in_place_of_trees(&bundle, Arc::new(Mutex::new(model)), errors)?;
    }
    let bundle = Arc::new(bundle);
    let strategies = options.strategies.as_deref().map(read_strategies).transpose()?.unwrap_or_default();
    let prediction = decide(bundle, &options.request, &options.fleet, Runtime::default(), strategies)?;
    if json {
        output::print_json(&prediction)
    } else {
        print!("{}", visible(&in_words(&prediction)));
        Ok(())
    }
}

/// Decides the request in one file for the fleet in another, as a router would that has nothing in flight.
pub(crate) fn decide(
    bundle: Arc<ModelBundle>,
    request: &Path,
    fleet: &Path,
    runtime: Runtime,
    strategies: StrategiesConfig,
) -> miette::Result<ShardPrediction> {
    let wrong = |path: &Path| {
        let path = path.display().to_string();
        move |error: InvalidInput| miette!("{path}: {error}")
    };
    let request_text = files::read(request)?;
    let asked = PlacementRequest::from_json(&request_text).map_err(wrong(request))?;
    let shards = FleetSnapshot::from_json(&files::read(fleet)?).map_err(wrong(fleet))?;
    warn_of_the_unseen(&bundle, &asked);
    decide_for(Some(bundle), &asked, &shards, runtime, strategies)
}

/// Decides a request for a fleet, as a router would that has nothing in flight, with a model or without one.
pub(crate) fn decide_for(
    bundle: Option<Arc<ModelBundle>>,
    request: &PlacementRequest,
    fleet: &FleetSnapshot,
    runtime: Runtime,
    strategies: StrategiesConfig,
) -> miette::Result<ShardPrediction> {
    let (router, market) = (RouterState::new(), MarketSnapshot::default());
    let decided_at = latest(request, fleet);
    let context = DecisionContext { request, decided_at, fleet, router: &router, market: &market, service_table: None };
    // Whoever asks once wants the best, not a draw that teaches.
    let config = PlacerConfig { exploration: None, ..PlacerConfig::for_runtime(runtime) };
    let strategies = Strategies::new(strategies).into_diagnostic()?;
    let placer = bundle.map_or_else(Placer::without_model, Placer::with_model);
    placer.with_config(config).with_strategies(strategies).predict_optimal_shard(&context).map_err(|refusal| {
        let help = "run it locally, or look at the health, amounts and memory of the shards in the fleet";
        miette!(help = help, "{refusal}")
    })
}

/// Reads and checks a configuration of the strategies.
pub(crate) fn read_strategies(path: &Path) -> miette::Result<StrategiesConfig> {
    StrategiesConfig::from_toml(&files::read(path)?).map_err(|error| miette!("{}: {error}", path.display()))
}

/// `shardwise strategies`: the defaults, or whether a file is right.
pub(crate) fn strategies(options: &StrategiesArguments, json: bool) -> miette::Result<()> {
    let config = options.check.as_deref().map(read_strategies).transpose()?.unwrap_or_default();
    match json {
        true => output::print_json(&config),
        false => {
            print!("{}", config.to_toml());
            Ok(())
        }
    }
}

/// The latest instant that the inputs speak of: what files hold has no other "now".
fn latest(request: &PlacementRequest, fleet: &FleetSnapshot) -> Timestamp {
    let reports = fleet.shards.iter().filter_map(|shard| shard.report.as_ref()).map(|report| report.known_at);
    reports.fold(request.event_at, Timestamp::max)
}

/// Unseen categories are legal and have their own bucket; the user is told all the same.
fn warn_of_the_unseen(bundle: &ModelBundle, request: &PlacementRequest) {
    let table = bundle.service_table();
    if table.function_ln_ms(request).is_none() {
        output::note(format!(
            "function '{}' is not in the model's history; the cost leans on what the request itself says",
            request.function
        ));
    }
    let categories = [
        ("protocol", request.protocol.key(), request.protocol.as_str()),
        ("event type", request.event_type.key(), request.event_type.as_str()),
        ("trading pair", request.trading_pair.key(), request.trading_pair.as_str()),
    ];
    for (what, _, name) in categories.into_iter().filter(|(_, key, _)| table.category_ln_ms(*key).is_none()) {
        output::note(format!("{what} '{name}' is not in the model's history; it is taken as unknown"));
    }
}

/// The decision for people.
pub(crate) fn in_words(prediction: &ShardPrediction) -> String {
    let mut text = format!(
        "{}  (confidence {:.2}, {:.1} ms expected, load {:.2} per core, model {})\n",
        prediction.recommended_shard,
        prediction.confidence.value(),
        prediction.expected_latency,
        prediction.expected_load,
        prediction.model_version.as_deref().unwrap_or("none"),
    );
    for reason in &prediction.reasoning() {
        text += &format!("  · {reason}\n");
    }
    for other in &prediction.alternative_shards {
        let (cost_ms, best) = (other.cost.total_ms(), other.probability_best.value());
        text += &format!("  else {}  {cost_ms:.1} ms, best with probability {best:.2}\n", other.shard);
    }
    text
}
