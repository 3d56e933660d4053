//! The one table of features. The vector, the Parquet columns, the reference page and the fingerprint are read off it.
//!
//! Rows that depend on the request and the fleet alone come first and are computed once a decision; rows that depend
//! on the candidate follow. No row is a shard's name: a shard born after training must be scored like the rest.

use std::f64::consts::TAU;

use crate::extract::{CandidateInputs, DecisionInputs};

/// What a feature speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureGroup {
    /// The request itself.
    Request,
    /// The fleet and the traffic as a whole.
    Fleet,
    /// The market.
    Market,
    /// Hour and weekday.
    Time,
    /// What this router saw of the candidate.
    Local,
    /// What joins function and candidate.
    Pair,
    /// Distances.
    Net,
    /// What does not change about the candidate.
    Shape,
    /// What the candidate last reported of itself.
    Report,
}

impl FeatureGroup {
    /// All groups.
    pub const ALL: [Self; 9] = [
        Self::Request,
        Self::Fleet,
        Self::Market,
        Self::Time,
        Self::Local,
        Self::Pair,
        Self::Net,
        Self::Shape,
        Self::Report,
    ];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Fleet => "fleet",
            Self::Market => "market",
            Self::Time => "time",
            Self::Local => "local",
            Self::Pair => "pair",
            Self::Net => "net",
            Self::Shape => "shape",
            Self::Report => "report",
        }
    }
}

/// How a feature is computed. A value that is not known is NaN, which the model treats as a value of its own.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// From the request and the fleet; the same for all candidates.
    Decision(fn(&DecisionInputs<'_>) -> f64),
    /// From the candidate as well.
    Candidate(fn(&CandidateInputs<'_>) -> f64),
}

/// One feature.
#[derive(Clone, Copy)]
pub struct Feature {
    /// Its name, the unit last; also the Parquet column.
    pub name: &'static str,
    /// What it speaks of.
    pub group: FeatureGroup,
    /// What it is, in one sentence.
    pub doc: &'static str,
    /// How it is computed.
    pub(crate) source: Source,
}

impl Feature {
    /// Whether it is the same for all candidates of a decision.
    pub fn is_per_decision(&self) -> bool {
        matches!(self.source, Source::Decision(_))
    }
}

/// Position of a feature; `None` when there is none of that name.
pub fn position(name: &str) -> Option<usize> {
    FEATURES.iter().position(|feature| feature.name == name)
}

macro_rules! features {
    ($($group:ident $scope:ident $name:ident, $doc:literal, $compute:expr;)*) => {
        /// All features, in the order of the vector.
        pub const FEATURES: &[Feature] = &[$(Feature {
            name: stringify!($name), group: FeatureGroup::$group, doc: $doc, source: Source::$scope($compute),
        }),*];
    };
}

/// How many features, from the first on, are those that the specification lists; they say nothing of a candidate.
pub const SPECIFICATION_FEATURES: usize = 22;

features! {
    // The specification's 22 (its four request, four crypto, four fleet, two clock, three traffic and two market
    // features, the clock as two points on a circle each and a missing amount told from zero).
    Request Decision event_type_ln_ms, "Mean ln execution ms of the event type in history; NaN for an unseen one.", |d| or_nan(d.category(d.request.event_type.key()));
    Request Decision data_complexity, "Size of the input relative to the function's usual one.", |d| f64::from(d.request.data_complexity);
    Request Decision expected_compute_ms, "What the caller expects the function to take; NaN when it does not say.", |d| or_nan(d.request.expected_compute_ms.map(f64::from));
    Request Decision business_priority, "Priority from 0 (low) to 3 (critical).", |d| f64::from(d.request.priority.rank());
    Request Decision trading_pair_ln_ms, "Mean ln execution ms of the trading pair in history; NaN for an unseen one.", |d| or_nan(d.category(d.request.trading_pair.key()));
    Request Decision protocol_ln_ms, "Mean ln execution ms of the protocol in history; NaN for an unseen one.", |d| or_nan(d.category(d.request.protocol.key()));
    Request Decision risk_level, "Risk from 0 (low) to 3 (critical).", |d| f64::from(d.request.risk.rank());
    Request Decision amount_ln_usd, "ln(1 + amount at stake in US dollars), 0 when unknown.", |d| d.request.amount_usd.map_or(0.0, |amount| amount.usd().ln_1p());
    Request Decision amount_missing, "1 when the amount is unknown, else 0.", |d| f64::from(u8::from(d.request.amount_usd.is_none()));
    Fleet Decision shard_load_mean, "Mean of the reported loads, 0 to 1; NaN when no shard reported.", |d| d.fleet.load_mean;
    Fleet Decision shard_load_max, "Largest reported load, 0 to 1; NaN when no shard reported.", |d| d.fleet.load_max;
    Fleet Decision shard_load_variance, "Variance of the reported loads; NaN when no shard reported.", |d| d.fleet.load_variance;
    Fleet Decision healthy_shards, "Shards that report that they are healthy.", |d| d.fleet.healthy;
    Time Decision hour_sin, "Hour of the day in UTC, sine.", |d| (d.decided_at.hour_utc() / 24.0 * TAU).sin();
    Time Decision hour_cos, "Hour of the day in UTC, cosine.", |d| (d.decided_at.hour_utc() / 24.0 * TAU).cos();
    Time Decision weekday_sin, "Day of the week in UTC, sine.", |d| (d.decided_at.weekday_utc() / 7.0 * TAU).sin();
    Time Decision weekday_cos, "Day of the week in UTC, cosine.", |d| (d.decided_at.weekday_utc() / 7.0 * TAU).cos();
    Fleet Decision recent_events_per_s, "Requests per second that this router saw over the last ten seconds.", |d| d.router.arrivals_per_s(d.decided_at);
    Fleet Decision response_ms_mean, "Moving mean of this router's response times; NaN before the first.", |d| or_nan(d.router.response_ms());
    Fleet Decision error_rate, "Moving share of this router's requests that failed; NaN before the first response.", |d| or_nan(d.router.error_rate());
    Market Decision volatility_bp, "Standard deviation of one-minute log returns over the last hour in basis points; NaN when unknown.", |d| or_nan(d.market.volatility.map(f64::from));
    Market Decision trend_bp, "Log return over the last hour in basis points; NaN when unknown.", |d| or_nan(d.market.trend.map(f64::from));
    // Beyond the specification.
    Request Decision urgency, "Urgency from 0 (low) to 3 (critical).", |d| f64::from(d.request.urgency.rank());
    Request Decision exchange_calls, "Sequential calls that the function makes to the exchange.", |d| f64::from(d.request.exchange_calls);
    Request Decision memory_mb, "Memory that the request needs.", |d| f64::from(d.request.memory_mb);
    Request Decision function_ln_ms, "Mean over shards of the function's ln execution ms in history; NaN for an unseen one.", |d| or_nan(d.service_table.and_then(|table| table.function_ln_ms(d.request)));
    Request Decision function_cold_ms, "Extra ms of a cold start of the function in history; NaN without history.", |d| or_nan(d.cold_ms);
    Request Decision function_residual_ln, "How much slower than expected the function has been of late on this router, in ln.", |d| d.router.function_residual(d.request);
    Request Decision since_function_s, "Seconds since this router last placed the function; NaN when it never did.", |d| or_nan(d.router.last_seen(d.request).map(|at| d.decided_at.millis_since(at) / 1e3));

    Local Candidate in_flight_per_core, "This router's requests in flight on the candidate, per core.", |c| c.local.in_flight / c.cores;
    Local Candidate cores_in_flight_per_core, "The same, each counted for the share of its time on a core.", |c| c.local.in_flight_cores / c.cores;
    Local Candidate others_per_core, "Cores wanted by other routers' requests, from queue lengths on responses, per core.", |c| c.local.others / c.cores;
    Local Candidate pending_ms_per_core, "Predicted execution ms of this router's requests in flight, per core.", |c| c.local.pending_ms / c.cores;
    Local Candidate in_flight_age_ms, "Mean time that this router's requests have been in flight on the candidate; NaN when there are none.", |c| or_nan(c.local.in_flight_age_ms(c.decided_at));
    Local Candidate expected_wait_ms, "Expected time in the candidate's queue by what is in flight there and how long that is expected to take.", |c| c.local.wait_ms(c.cores, c.prior_service_ln_ms.unwrap_or(c.local.exec_ln_ms).exp());
    Local Candidate piggyback_queue_per_core, "Requests on the candidate when it last answered, per core.", |c| c.local.piggyback_queue / c.cores;
    Local Candidate piggyback_age_ms, "Time since the candidate last answered; NaN when it never did.", |c| or_nan(c.local.piggyback_at.map(|at| c.decided_at.millis_since(at)));
    Local Candidate residual_ln, "How much slower than expected the candidate has been of late, in ln.", |c| c.local.residual;
    Local Candidate exec_ln_ms, "Moving mean of ln execution ms on the candidate; NaN before the first.", |c| if c.local.executions > 0.0 { c.local.exec_ln_ms } else { f64::NAN };
    Local Candidate latency_ms, "Moving mean of the candidate's response times; NaN before the first.", |c| if c.local.responses > 0.0 { c.local.latency_ms } else { f64::NAN };
    Local Candidate shard_error_rate, "Share of this router's requests to the candidate that failed of late, as if a hundred good ones had come before.", |c| c.local.error_rate;
    Local Candidate dispatched_since_report, "Requests that this router sent there since the candidate's last report.", |c| c.local.since_report;

    Pair Candidate service_ln_ms, "Expected warm ln execution ms of the request on the candidate by history; NaN for an unseen function.", |c| or_nan(c.service.and_then(|service| service.ln_ms));
    Pair Candidate prior_service_ln_ms, "Expected warm ln execution ms by history, else by this router's measurements, else by the caller; NaN when nothing is known.", |c| or_nan(c.prior_service_ln_ms);
    Pair Candidate cold_ratio_ln, "ln of cold over warm execution time of the function here; NaN without history.", cold_ratio_ln;
    Pair Candidate shard_effect_ln, "How much slower the candidate is than the mean, by itself and for the protocol, in ln; NaN without history.", |c| or_nan(c.service.map(|service| service.shard_effect));
    Pair Candidate pair_effect_ln, "How much slower the function is on the candidate than both would say, in ln; NaN without history.", |c| or_nan(c.service.map(|service| service.pair_effect));
    Pair Candidate pair_samples_ln, "ln(1 + executions of the function on the candidate in history); NaN without history.", |c| or_nan(c.service.map(|service| service.pair_samples.ln_1p()));
    Pair Candidate since_dispatch_s, "Seconds since this router last sent the function there; NaN when it never did.", |c| or_nan(c.context.last_dispatch(&c.shard.id).map(|at| c.decided_at.millis_since(at) / 1e3));
    Pair Candidate dispatches_since, "Requests that this router sent to the candidate since it last sent the function there; NaN when it never did.", |c| or_nan(c.context.dispatches_since(&c.shard.id));
    Pair Candidate online_service_ln_ms, "Expected warm ln execution ms by what this router measured itself; NaN when it never ran the function.", |c| or_nan(c.router.online_service_ln_ms(c.request, &c.shard.id));

    Net Candidate rtt_ms, "Round trip from the router to the candidate.", |c| c.rtt_ms;
    Net Candidate exchange_rtt_ms, "Round trip from the candidate to the exchange.", |c| c.exchange_rtt_ms;
    Net Candidate exchange_net_ms, "Round trips to the exchange for all calls.", |c| c.exchange_rtt_ms * f64::from(c.request.exchange_calls);

    Shape Candidate cores, "Cores of the candidate.", |c| c.cores;
    Shape Candidate clock_ghz, "Clock of the candidate in GHz.", |c| f64::from(c.shard.shape.clock_ghz);
    Shape Candidate shard_memory_mb, "Memory of the candidate.", |c| f64::from(c.shard.shape.memory_mb);
    Shape Candidate hardware_compute, "1 when the candidate is of the compute class, else 0.", |c| c.is_hardware(shardwise_types::HardwareClass::Compute);
    Shape Candidate hardware_memory, "1 when the candidate is of the memory class, else 0.", |c| c.is_hardware(shardwise_types::HardwareClass::Memory);
    Shape Candidate hardware_burstable, "1 when the candidate is of the burstable class, else 0.", |c| c.is_hardware(shardwise_types::HardwareClass::Burstable);

    Report Candidate report_cpu, "Share of the candidate's cores in use, as reported; NaN without a report.", |c| c.report(|report| f64::from(report.cpu));
    Report Candidate report_memory, "Share of the candidate's memory in use, as reported; NaN without a report.", |c| c.report(|report| f64::from(report.memory));
    Report Candidate report_load, "Overall load, the fullest of CPU, memory and queue, as reported; NaN without a report.", |c| or_nan(c.shard.load().map(f64::from));
    Report Candidate report_queue_per_core, "Requests that wait, per core, as reported; NaN without a report.", |c| c.report(|report| f64::from(report.queue_len)) / c.cores;
    Report Candidate report_running_per_core, "Requests that run, per core, as reported; NaN without a report.", |c| c.report(|report| f64::from(report.running)) / c.cores;
    Report Candidate report_error_rate, "Share of requests that failed, as reported; NaN without a report.", |c| c.report(|report| f64::from(report.error_rate));
    Report Candidate report_latency_ms, "Mean time of a request on the candidate, as reported; NaN without a report.", |c| c.report(|report| f64::from(report.mean_latency_ms));
    Report Candidate report_age_ms, "Time since the report was measured; NaN without a report.", report_age_ms;
}

fn cold_ratio_ln(candidate: &CandidateInputs<'_>) -> f64 {
    match (candidate.cold_ms, candidate.prior_service_ln_ms) {
        (Some(cold_ms), Some(warm_ln_ms)) => (cold_ms / warm_ln_ms.exp()).ln_1p(),
        _ => f64::NAN,
    }
}

fn report_age_ms(candidate: &CandidateInputs<'_>) -> f64 {
    candidate.report(|report| candidate.decided_at.millis_since(report.event_at))
}

fn or_nan(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_none_is_a_shards_name() {
        for (i, feature) in FEATURES.iter().enumerate() {
            assert_eq!(position(feature.name), Some(i), "{} is there twice", feature.name);
            assert!(!["shard", "shard_id", "shard_index"].contains(&feature.name));
            assert!(feature.doc.ends_with('.'), "{}: one sentence", feature.name);
        }
    }

    #[test]
    fn what_is_computed_once_a_decision_comes_first() {
        assert!(FEATURES.is_sorted_by_key(|feature| !feature.is_per_decision()));
    }

    #[test]
    fn the_specifications_features_end_with_the_market() {
        assert_eq!(FEATURES[SPECIFICATION_FEATURES - 1].name, "trend_bp");
        assert!(FEATURES[..SPECIFICATION_FEATURES].iter().all(Feature::is_per_decision));
    }

    #[test]
    fn every_group_has_features() {
        let groups: std::collections::BTreeSet<_> = FEATURES.iter().map(|feature| feature.group).collect();
        assert_eq!(groups, FeatureGroup::ALL.into());
    }
}
