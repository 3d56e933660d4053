//! What a placer can be told: hard limits, the cost, exploration, and every guard with its own switch.

use shardwise_policies::sed::SedConfig;
use shardwise_policies::{Rules, Runtime};

/// All settings of a [`Placer`](crate::Placer). The defaults were tuned on simulated fleets of seeds 1 to 9.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacerConfig {
    /// Hard rules.
    pub rules: Rules,
    /// The cost.
    pub cost: SedConfig,
    /// The price of core time in a busy fleet, where the model decides; see [`SedConfig::fleet_price`].
    pub fleet_price: f64,
    /// The model scores this many of the candidates that the service table finds cheapest, among them the one to which this
    /// router sent the function last; measured to cost nothing.
    pub model_candidates: usize,
    /// Share of the learned wait; the rest is the queue formula's, which no feedback can spoil. In [0, 1].
    pub wait_blend: f64,
    /// Whether the head of cold starts is used; otherwise a function counts as warm for the runtime's time to live.
    pub cold_head: bool,
    /// Share of the learned probability of failure in the error term; the rest is counted by this router. In [0, 1]. Off: half
    /// of it made the mean of simulated runs with a failing shard 1 % shorter and nothing else better, and the worst of 30
    /// runs 3 % longer.
    pub error_blend: f64,
    /// Whether quantiles of the latency start from the quantile heads; otherwise from the expected latency.
    pub quantile_heads: bool,
    /// Whether quantiles of the latency follow what responses teach.
    pub adaptive_quantiles: bool,
    /// Draws beside the cheapest; `None` for none.
    pub exploration: Option<Exploration>,
    /// What keeps a wrong model from doing harm.
    pub guards: Guards,
    /// Seed of the draws that [`predict_optimal_shard`](crate::Placer::predict_optimal_shard) makes.
    pub seed: u64,
}

impl Default for PlacerConfig {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            cost: SedConfig::default(),
            fleet_price: 1.0,
            model_candidates: 8,
            wait_blend: 0.5,
            cold_head: true,
            error_blend: 0.0,
            quantile_heads: true,
            adaptive_quantiles: true,
            exploration: Some(Exploration::default()),
            guards: Guards::default(),
            seed: 0,
        }
    }
}

impl PlacerConfig {
    /// The defaults, for a runtime with these times.
    pub fn for_runtime(runtime: Runtime) -> Self {
        Self { cost: SedConfig { runtime, ..SedConfig::default() }, ..Self::default() }
    }
}

/// Draws from a safe set, so that the history keeps telling of shards that the model would pass over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exploration {
    /// Share of the decisions that are drawn, in [0, 1).
    pub share: f64,
    /// A shard is safe when it costs at most so many times the least.
    pub dearest: f64,
    /// A shard is safe when at most this share of its requests failed of late.
    pub most_errors: f64,
    /// Above this amount nothing is drawn, in US dollars.
    pub most_usd: f64,
    /// Nothing is drawn when the cheapest shard wants more cores than this for each of its own: a brown-out.
    pub most_utilisation: f64,
}

impl Default for Exploration {
    fn default() -> Self {
        Self { share: 0.01, dearest: 1.3, most_errors: 0.03, most_usd: 1e6, most_utilisation: 1.5 }
    }
}

/// The guards; each can be turned off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guards {
    /// Passes over a predictor that has erred more than a simpler one, by this factor; `None` for never.
    pub gate: Option<f64>,
    /// Takes the service table's choice when it finds the model's far dearer.
    pub cap: Option<Cap>,
    /// Takes a shard with a free core when the cheapest is crowded.
    pub admission: Option<Admission>,
    /// Gives a new shard its traffic little by little.
    pub slow_start: bool,
    /// Oldest training data that is trusted, in days before the decision; `None` for any.
    pub max_model_age_days: Option<f64>,
    /// Largest share of the features that may be missing; `None` for any.
    pub max_missing: Option<f64>,
    /// What the model may take of a decision, and the clock that measures it; `None` for as long as it takes.
    pub budget: Option<Budget>,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            gate: Some(1.05),
            cap: Some(Cap::default()),
            admission: Some(Admission::default()),
            slow_start: true,
            max_model_age_days: Some(7.0),
            max_missing: Some(0.5),
            budget: None,
        }
    }
}

impl Guards {
    /// Without any guard: what the model says is done.
    pub fn none() -> Self {
        Self {
            gate: None,
            cap: None,
            admission: None,
            slow_start: false,
            max_model_age_days: None,
            max_missing: None,
            budget: None,
        }
    }
}

/// How dear a choice may be by the service table: `factor` times its least cost, and `slack_ms` more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cap {
    /// The factor.
    pub factor: f64,
    /// The slack, in ms.
    pub slack_ms: f64,
}

impl Default for Cap {
    fn default() -> Self {
        Self { factor: 2.0, slack_ms: 20.0 }
    }
}

/// When a free core is worth a higher cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Admission {
    /// A shard is crowded when more cores than this are wanted for each of its own.
    pub crowded: f64,
    /// The other may cost at most so many times the least.
    pub dearest: f64,
}

impl Default for Admission {
    fn default() -> Self {
        Self { crowded: 2.0, dearest: 1.3 }
    }
}

/// Time that the model may take.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Moving mean of the time per decision that is allowed, in µs.
    pub model_us: f64,
    /// Reads a monotonic clock, in ns. The crate itself reads none.
    pub clock_ns: fn() -> u64,
}

impl PartialEq for Budget {
    fn eq(&self, other: &Self) -> bool {
        self.model_us.total_cmp(&other.model_us).is_eq() && std::ptr::fn_addr_eq(self.clock_ns, other.clock_ns)
    }
}
