//! Shortest expected delay: the cost of a candidate as a sum of terms in ms.
//!
//! ```text
//! network    router ↔ shard + calls × shard ↔ exchange
//! execution  exp(expected ln ms + residual of the shard) × smearing
//! cold       loading, when this router has not sent the function there within the time that shards keep it
//! wait       max(0, n − c + 1) / c × mean execution of what is in flight × exp(residual)
//! errors     share of failed requests × timeout, above a floor of noise
//! congestion (execution + cold) × (λ × max(0, n / c − 0.7) + μ × max(0, N / C − 0.6)): what core time on a busy shard, and in a
//!            busy fleet, costs the requests behind
//! ```
//! n is the cores wanted (own in flight and others' by piggybacked queue lengths), c the cores. λ keeps several routers
//! from crowding onto the same best shard. N and C are the sums over all candidates: when the whole fleet is busy, core time
//! is dear wherever it is spent, and a cold start or a slow shard costs more than the request itself feels.

use shardwise_features::{DecisionContext, RequestService, ShardLocal};
use shardwise_types::{CostTerms, Region, Timestamp};

/// The price of congestion; the optimum is flat between 0.5 and 1.
pub const LAMBDA: f64 = 1.0;

/// Utilisation from which congestion is priced.
const CONGESTION_FROM: f64 = 0.7;
/// Utilisation of the fleet from which core time is priced anywhere. Tuned, like the price itself, on seeds 1 to 9.
const FLEET_CONGESTION_FROM: f64 = 0.6;
/// Shares of failed requests up to this are noise.
const ERROR_FLOOR: f64 = 0.03;
/// From mean of logs to mean, where no table knows better (log-normal with σ about 0.5).
const ONLINE_SMEARING: f64 = 1.15;
/// A cold start costs this before one was seen, in ms.
const UNKNOWN_COLD_MS: f64 = 60.0;
/// An execution takes this before one was seen, in ms.
const UNKNOWN_SERVICE_MS: f64 = 10.0;

/// What the cost needs to know of the runtime that it places for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Runtime {
    /// A failed request costs this much, in ms.
    pub timeout_ms: f64,
    /// A shard keeps a function loaded for this long after it ran, in ms.
    pub warm_ttl_ms: f64,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { timeout_ms: 3_000.0, warm_ttl_ms: 30_000.0 }
    }
}

/// The cost's own knobs beside the runtime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SedConfig {
    /// The price of congestion on a shard.
    pub lambda: f64,
    /// The price of core time in a busy fleet. It pays with a model; without one 0 was best on seeds 1 to 9.
    pub fleet_price: f64,
    /// The runtime.
    pub runtime: Runtime,
}

impl Default for SedConfig {
    fn default() -> Self {
        Self { lambda: LAMBDA, fleet_price: 0.0, runtime: Runtime::default() }
    }
}

/// A candidate's state, read once and used by every term.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// What this router saw of it.
    pub local: ShardLocal,
    /// Its cores.
    pub cores: f64,
    /// Expected warm execution without residuals, in ln ms; `None` when nothing is known of the function.
    pub service_ln_ms: Option<f64>,
    /// Round trips to the shard and the exchange, in ms.
    pub network_ms: f64,
    /// When this router last sent the function there.
    pub last_dispatch: Option<Timestamp>,
    /// Cores wanted over cores of all candidates; 0 for a candidate that was read alone, see
    /// [`fleet_utilisation`].
    pub fleet_utilisation: f64,
}

/// Cores wanted over cores of all candidates.
pub fn fleet_utilisation<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> f64 {
    let sum = |(wanted, cores): (f64, f64), one: &Candidate| (wanted + one.local.cores_wanted(), cores + one.cores);
    let (wanted, cores) = candidates.fold((0.0, 0.0), sum);
    if cores > 0.0 { wanted / cores } else { 0.0 }
}

impl Candidate {
    /// Reads the candidate at a position of the context's fleet.
    pub fn read(context: &DecisionContext<'_>, position: usize) -> Self {
        Self::reader(context)(position)
    }

    /// Reads candidates of one decision; what they have in common is looked up once.
    pub fn reader<'a>(context: &'a DecisionContext<'a>) -> impl Fn(usize) -> Self + 'a {
        let service = context.service_table.map(|table| table.of(context.request));
        let exchange_region = context.fleet.network.exchange_region(&context.request.exchange);
        move |position| Self::read_with(context, service.as_ref(), exchange_region, position)
    }

    fn read_with(
        context: &DecisionContext<'_>,
        service: Option<&RequestService<'_>>,
        exchange_region: &Region,
        position: usize,
    ) -> Self {
        let (request, fleet) = (context.request, context.fleet);
        let shard = &fleet.shards[position];
        let (network, region) = (&fleet.network, &shard.shape.region);
        let exchange_rtt_ms = network.rtt_ms(region, exchange_region);
        let by_table = service.and_then(|service| service.on(&shard.id).ln_ms);
        Self {
            local: context.router.shard(&shard.id, context.decided_at),
            cores: f64::from(shard.shape.cores),
            service_ln_ms: by_table.or_else(|| context.router.service_ln_ms_without_table(request, &shard.id)),
            last_dispatch: context.last_dispatch(&shard.id),
            fleet_utilisation: 0.0,
            network_ms: f64::from(network.rtt_ms(&fleet.router_region, region))
                + f64::from(request.exchange_calls) * f64::from(exchange_rtt_ms),
        }
    }

    /// Cost with the execution time of the service table or of online measurements.
    pub fn cost(&self, context: &DecisionContext<'_>, config: &SedConfig) -> CostTerms {
        let execution_ms = self.execution_ms(context);
        let cold_ms = if self.is_warm(context, config) { 0.0 } else { expected_cold_ms(context) };
        self.cost_given(execution_ms, cold_ms, config)
    }

    /// Warm execution that is typical of the request here by another context's knowledge, such as one without the service
    /// table, in ms: about its median, where the cost goes by the mean.
    pub fn typical_execution_ms(&self, context: &DecisionContext<'_>, position: usize) -> f64 {
        let shard = &context.fleet.shards[position].id;
        let service_ln_ms = context.router.service_ln_ms(context.service_table, context.request, shard);
        Self { service_ln_ms, ..*self }.execution_ms(context) / smearing(context)
    }

    /// Whether this router sent the function there so recently that it must still be loaded.
    pub fn is_warm(&self, context: &DecisionContext<'_>, config: &SedConfig) -> bool {
        self.last_dispatch.is_some_and(|at| context.decided_at.millis_since(at) < config.runtime.warm_ttl_ms)
    }

    /// Cost with times of warm execution and of loading from elsewhere.
    pub fn cost_given(&self, execution_ms: f64, cold_ms: f64, config: &SedConfig) -> CostTerms {
        CostTerms {
            network_ms: self.network_ms,
            execution_ms,
            cold_ms,
            wait_ms: self.local.wait_ms(self.cores, execution_ms),
            error_ms: error_ms(self.local.error_rate, &config.runtime),
            congestion_ms: congestion_ms(config.lambda, execution_ms + cold_ms, self.utilisation())
                + config.fleet_price
                    * (execution_ms + cold_ms)
                    * (self.fleet_utilisation - FLEET_CONGESTION_FROM).max(0.0),
        }
    }

    /// Cores wanted over cores.
    pub fn utilisation(&self) -> f64 {
        self.local.cores_wanted() / self.cores
    }

    fn execution_ms(&self, context: &DecisionContext<'_>) -> f64 {
        let plain_ms = match self.service_ln_ms {
            Some(ln_ms) => ln_ms.exp(),
            None if self.local.executions > 0.0 => self.local.exec_ln_ms.exp(),
            None => UNKNOWN_SERVICE_MS,
        };
        plain_ms * smearing(context) * self.local.residual.exp()
    }
}

fn smearing(context: &DecisionContext<'_>) -> f64 {
    context.service_table.map_or(ONLINE_SMEARING, shardwise_features::ServiceTable::smearing)
}

/// The price of a busy shard: `lambda` times the core time for every core wanted beyond 0.7 per core.
pub fn congestion_ms(lambda: f64, execution_ms: f64, utilisation: f64) -> f64 {
    lambda * execution_ms * (utilisation - CONGESTION_FROM).max(0.0)
}

/// The price of a shard's errors in ms, which rivals pay too: failing fast must not look like being fast. Shares up to 3 % are
/// noise and cost nothing.
pub fn error_ms(error_rate: f64, runtime: &Runtime) -> f64 {
    if error_rate > ERROR_FLOOR { error_rate * runtime.timeout_ms } else { 0.0 }
}

/// What a cold start of the function is expected to cost, in ms.
pub fn expected_cold_ms(context: &DecisionContext<'_>) -> f64 {
    let by_history = context.service_table.map(|table| table.cold_ms(context.request)).filter(|ms| *ms > 0.0);
    by_history.or_else(|| context.router.online_cold_ms(context.request)).unwrap_or(UNKNOWN_COLD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardwise_features::golden::contexts;

    #[test]
    fn the_terms_add_up() {
        let golden = contexts().remove(2);
        let context = golden.context();
        let failed = shardwise_types::Response {
            error: Some(shardwise_types::ErrorClass::Failed),
            total_ms: 1.0,
            exec_ms: 0.0,
            queue_ms: 0.0,
            queue_len: 0,
            cold: false,
        };
        (0..4).for_each(|_| {
            let ticket = golden.router.on_dispatch(&context, 0);
            golden.router.on_response(&ticket, &failed, golden.decided_at);
        });
        let terms = Candidate::read(&context, 0).cost(&context, &SedConfig::default());
        let sum: f64 = terms.named().iter().map(|(_, ms)| ms).sum();
        assert!((sum - terms.total_ms()).abs() < 1e-9);
        assert!(terms.error_ms > 0.0, "it failed again and again");
    }

    #[test]
    fn more_in_flight_never_costs_less() {
        let golden = contexts().remove(1);
        let context = golden.context();
        let cost = || Candidate::read(&context, 1).cost(&context, &SedConfig::default()).total_ms();
        let mut before = cost();
        for _ in 0..20 {
            golden.router.on_dispatch(&context, 1);
            let after = cost();
            assert!(after >= before - 1e-9, "{before} then {after}");
            before = after;
        }
    }
}
