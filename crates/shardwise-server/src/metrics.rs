//! Prometheus metrics: base units, `_total` for counts, labels with few values. A gauge of a shard has the shard's name, of which
//! there are as many as shards.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use shardwise_features::BreakerState;
use shardwise_inference::Trust;
use shardwise_monitor::SystemMetrics;
use shardwise_types::{DecidedBy, FallbackReason};

use crate::figures::SECONDS;
use crate::http::App;

/// What a shard says of its machine.
type OfMachine = fn(&SystemMetrics) -> Option<f64>;

/// What shards measure as rates, in bytes a second: name, help, value.
const MACHINES: [(&str, &str, OfMachine); 4] = [
    ("shard_disk_read", "What disks read for it, as reported", |system| system.disk_read_bytes_per_s),
    ("shard_disk_written", "What is written to disks for it, as reported", |system| system.disk_written_bytes_per_s),
    ("shard_network_received", "What its networks receive, as reported", |system| system.received_bytes_per_s),
    ("shard_network_sent", "What its networks send, as reported", |system| system.sent_bytes_per_s),
];

/// How OpenMetrics calls itself.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How the older text format calls itself, which whoever asks for nothing gets.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as OpenMetrics, or in the older format.
///
/// # Errors
/// Never with memory to write to.
pub(crate) fn text(app: &Arc<App>, open_metrics: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("shardwise");
    registry.register_collector(Box::new(Figures(Arc::clone(app))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(if open_metrics { text } else { classic(&text) })
}

/// In the older format the name of a count is that of its samples, and units and the end are not said.
fn classic(text: &str) -> String {
    let counts: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let renamed = |line: &str| {
        let (kind, rest) = line.strip_prefix("# ")?.split_once(' ')?;
        let (name, said) = rest.split_once(' ')?;
        counts.contains(&name).then(|| format!("# {kind} {name}_total {said}"))
    };
    text.lines()
        .filter(|line| !line.starts_with("# UNIT") && *line != "# EOF")
        .map(|line| renamed(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

struct Figures(Arc<App>);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the figures of the server")
    }
}

/// Samples of one metric with the value of its one label, or none.
struct Metric<'a, V> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    label: Option<&'static str>,
    samples: Vec<(&'a str, V)>,
}

fn write<V: Copy>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: Metric<'_, V>,
    mut sample: impl FnMut(&mut MetricEncoder<'_>, V) -> fmt::Result,
) -> fmt::Result {
    let Metric { name, help, unit, kind, label, samples } = metric;
    let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (value, number) in samples {
        match label {
            Some(label) => sample(&mut family.encode_family(&[(label, value)])?, number)?,
            None => sample(&mut family, number)?,
        }
    }
    Ok(())
}

fn counts<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
    label: Option<&'static str>,
    samples: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let samples = samples.into_iter().collect();
    let metric = Metric { name, help, unit: None, kind: MetricType::Counter, label, samples };
    write(encoder, metric, |encoder, count| encoder.encode_counter::<NoLabelSet, _, u64>(&count, None))
}

fn count(encoder: &mut DescriptorEncoder<'_>, name: &'static str, help: &'static str, count: u64) -> fmt::Result {
    counts(encoder, name, help, None, [("", count)])
}

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    label: Option<&'static str>,
    samples: impl IntoIterator<Item = (&'a str, f64)>,
) -> fmt::Result {
    let samples = samples.into_iter().collect();
    write(encoder, Metric { name, help, unit, kind: MetricType::Gauge, label, samples }, |encoder, value| {
        encoder.encode_gauge(&value)
    })
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: f64,
) -> fmt::Result {
    gauges(encoder, name, help, unit, None, [("", value)])
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.decisions(encoder)?;
        self.outcomes(encoder)?;
        self.answers(encoder)?;
        self.model(encoder)?;
        self.history(encoder)?;
        self.fleet(encoder)
    }
}

impl Figures {
    fn decisions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let live = &self.0.live;
        let help = "Decisions by who decided and why nobody better did";
        let mut family = encoder.encode_descriptor("decisions", help, None, MetricType::Counter)?;
        for (decider, reason, count) in live.figures.decisions() {
            let reason = reason.map_or("none", FallbackReason::as_str);
            let labels = [("decided_by", DecidedBy::as_str(decider)), ("reason", reason)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        count(encoder, "decisions_refused", "Requests for which no shard was eligible", live.figures.refused())?;
        let help = "Requests whose traffic split had no shard that may be chosen";
        count(encoder, "splits_without_shard", help, live.figures.splits_without_shard())?;
        if let Some(agent) = live.agent.get().map(shardwise_control::AgentHost::status) {
            gauge(encoder, "config_version", "Version of splits and limits that is served", None, agent.serves as f64)?;
            let certain = f64::from(u8::from(agent.standing.is_certain()));
            gauge(encoder, "config_certain", "Whether that is known to be what holds: 1 or 0", None, certain)?;
        }
        let help = "Requests that were turned away before anything was decided, by reason";
        counts(encoder, "requests_rejected", help, Some("reason"), live.figures.turned_away())
    }

    fn outcomes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let live = &self.0.live;
        counts(encoder, "outcomes", "Outcomes by result", Some("result"), live.figures.outcomes())?;
        let duplicates = live.figures.duplicates();
        count(encoder, "outcomes_duplicate", "Outcomes that came before and were left out", duplicates)?;
        let unmatched = live.figures.unmatched_outcomes();
        count(encoder, "outcomes_unmatched", "Outcomes of decisions that another process made", unmatched)?;
        let help = "Outcomes that came when their decision was given up or forgotten, of which nothing was learned";
        count(encoder, "outcomes_late", help, live.figures.late_outcomes())?;
        let help = "Decisions whose outcome did not come in time";
        count(encoder, "outcomes_missing", help, live.pending.given_up())?;
        let help = "Decisions that were not remembered because too many waited for their outcomes";
        count(encoder, "decisions_forgotten", help, live.pending.turned_away())?;
        gauge(
            encoder,
            "decisions_waiting",
            "Decisions that wait for their outcome",
            None,
            live.pending.count() as f64,
        )?;
        let (foretold, within) = live.figures.coverage();
        count(encoder, "forecasts_measured", "Successful outcomes that had been foretold", foretold)?;
        let help = "Of these, those within the foretold quantile of their latency";
        let quantiles = ["0.5", "0.9", "0.99"].into_iter().zip(within);
        counts(encoder, "forecasts_within", help, Some("foretold"), quantiles)?;
        let [expected, measured] = live.figures.seconds_foretold();
        let help = "Sum of the measured latencies over the sum of the foretold ones; 1 is calibrated";
        gauge(encoder, "calibration_ratio", help, None, if expected > 0.0 { measured / expected } else { 1.0 })
    }

    fn answers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (buckets, sum) = self.0.live.figures.answers();
        let bounds = SECONDS.into_iter().chain(std::iter::once(f64::MAX));
        let buckets: Vec<(f64, u64)> = bounds.zip(buckets).collect();
        let all = buckets.iter().map(|(_, count)| count).sum();
        let help = "Time from the head of a request to its answer";
        let mut histogram = encoder.encode_descriptor("answer", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        histogram.encode_histogram::<NoLabelSet>(sum, all, &buckets, None)?;
        let help = "How long work waits for a thread; above the limit new work is turned away";
        gauge(encoder, "pressure", help, Some(Unit::Seconds), self.0.pressure.seconds())
    }

    fn model(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (live, models) = (&self.0.live, &self.0.models);
        let bundle = live.decider.placer().and_then(shardwise_inference::Placer::bundle);
        let is_loaded = f64::from(u8::from(bundle.is_some()));
        gauge(encoder, "model_loaded", "Whether a model is loaded: 1 or 0", None, is_loaded)?;
        if let Some(bundle) = bundle {
            let seconds = live.clock.now().millis_since(bundle.manifest().trained_to) / 1e3;
            gauge(
                encoder,
                "model_age",
                "Age of the newest data that the model learned from",
                Some(Unit::Seconds),
                seconds,
            )?;
        }
        count(encoder, "model_swaps", "Models that were put into use", models.swaps())?;
        count(
            encoder,
            "model_failures",
            "Looks at the registry that failed, and models that were refused",
            models.failures(),
        )?;
        let unreachable = f64::from(u8::from(models.is_unreachable(live.clock.now())));
        gauge(encoder, "registry_unreachable", "Whether the registry could not be reached: 1 or 0", None, unreachable)?;
        if let Some(placer) = live.decider.placer() {
            let trust = match placer.trust() {
                Trust::Model => 2.0,
                Trust::Table => 1.0,
                Trust::Online => 0.0,
            };
            let help = "Whom the gate trusts: 2 the model, 1 the service table, 0 own measurements only";
            gauge(encoder, "gate_trust", help, None, trust)?;
        }
        if let Some(shadow) = &live.shadow {
            count(encoder, "shadow_decisions", "Decisions that the challenger was asked about", shadow.observed())?;
            count(encoder, "shadow_dropped", "Decisions that the challenger had no room for", shadow.dropped())?;
            count(
                encoder,
                "shadow_agreements",
                "Decisions that it would have made alike",
                live.figures.shadow_agreed(),
            )?;
            let help = "Share of the last decisions that it would have made alike";
            let shares = live.figures.agreement.shares(live.clock.now());
            gauges(encoder, "shadow_agreement_ratio", help, None, Some("window"), shares)?;
        }
        Ok(())
    }

    fn history(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (live, keeping) = (&self.0.live, &self.0.keeping);
        count(encoder, "log_records", "Decisions and outcomes that were logged", live.log.written())?;
        count(encoder, "log_dropped", "Decisions that the log had no room for", live.log.dropped_decisions())?;
        count(encoder, "journal_decisions", "Decisions that are in the journal", keeping.decisions.load(Relaxed))?;
        count(encoder, "journal_errors", "Writes that the disk did not take", keeping.errors.load(Relaxed))?;
        let failing = f64::from(u8::from(keeping.is_failing.load(Relaxed)));
        gauge(encoder, "journal_failing", "Whether the last write failed: 1 or 0", None, failing)?;
        let waiting = keeping.waiting_bytes.load(Relaxed) as f64;
        gauge(encoder, "journal_waiting", "What waits to be written", Some(Unit::Bytes), waiting)?;
        let uncounted = live.accepted.failures();
        count(encoder, "accepted_uncounted", "Decisions whose number could not be written down", uncounted)?;
        let help = "Decisions that the process before answered and did not write before it was killed";
        gauge(encoder, "journal_lost_before", help, None, self.0.lost_before as f64)?;
        count(encoder, "clock_jumps", "Jumps of the wall clock", live.clock.jumps())?;
        let ahead = live.figures.wall_ahead_seconds();
        gauge(
            encoder,
            "clock_wall_ahead",
            "How far the wall clock is ahead of the router's",
            Some(Unit::Seconds),
            ahead,
        )
    }

    fn fleet(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let live = &self.0.live;
        let counted = &live.view.counts();
        let reports = [
            ("new", counted.new),
            ("duplicate", counted.duplicates),
            ("late", counted.late),
            ("distrusted", counted.distrusted),
            ("malformed", counted.refused_malformed),
            ("unknown_version", counted.refused_version),
            ("wrong_subject", counted.refused_subject),
        ];
        counts(encoder, "reports", "Reports of shards by what was made of them", Some("result"), reports)?;
        gauge(encoder, "reports_missing", "Reports that did not come, by their numbers", None, counted.missing as f64)?;
        let status = live.view.status(live.clock.now());
        let silent = f64::from(u8::from(status.silent));
        gauge(encoder, "reports_silent", "Whether no shard reports any more: 1 or 0", None, silent)?;
        let now = live.clock.now();
        let fleet = live.view.snapshot();
        let known = || fleet.shards.iter().filter_map(|shard| Some((shard.id.as_str(), shard.report.as_ref()?)));
        let ages = known().map(|(id, report)| (id, now.millis_since(report.known_at) / 1e3));
        gauges(encoder, "shard_report_age", "Age of the last report", Some(Unit::Seconds), Some("shard"), ages)?;
        let loads = fleet.shards.iter().filter_map(|shard| Some((shard.id.as_str(), f64::from(shard.load()?))));
        gauges(encoder, "shard_load_ratio", "Load as reported", None, Some("shard"), loads)?;
        let healthy = known().map(|(id, report)| (id, f64::from(u8::from(report.healthy))));
        gauges(encoder, "shard_healthy", "Whether it calls itself healthy: 1 or 0", None, Some("shard"), healthy)?;
        for (name, help, of) in MACHINES {
            let said = status.shards.iter().filter_map(|shard| Some((shard.shard.as_str(), of(&shard.system)?)));
            let unit = Some(Unit::Other("bytes_per_second".to_owned()));
            gauges(encoder, name, help, unit, Some("shard"), said)?;
        }
        let breakers = fleet.shards.iter().map(|shard| {
            let state = match live.router.breaker(&shard.id, now) {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            };
            (shard.id.as_str(), state)
        });
        gauges(encoder, "shard_breaker", "0 closed, 1 half-open, 2 open", None, Some("shard"), breakers)?;
        let in_flight = fleet.shards.iter().map(|shard| (shard.id.as_str(), live.router.in_flight(&shard.id, now)));
        gauges(encoder, "shard_in_flight", "Own requests that are there", None, Some("shard"), in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counts_by_their_samples() {
        let open = "# HELP a_b Help me.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n# UNIT c_seconds seconds\n# TYPE c_seconds gauge\nc_seconds 1.0\n# EOF\n";
        let expected = "# HELP a_b_total Help me.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n# TYPE c_seconds gauge\nc_seconds 1.0\n";
        assert_eq!(classic(open), expected);
    }
}
