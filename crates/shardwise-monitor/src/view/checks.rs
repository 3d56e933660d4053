//! Whether what a shard says can be: what cannot is not followed.

use shardwise_types::{FleetSnapshot, InvalidInput, Network, ShardSnapshot, Timestamp};

use super::FleetViewConfig;
use crate::envelope::Envelope;

/// A mean time of a day or more is no measurement.
const LONGEST_MEAN_MS: f32 = 86_400_000.0;

pub(super) fn check(envelope: &Envelope, received_at: Timestamp, config: &FleetViewConfig) -> Result<(), InvalidInput> {
    check_ranges(envelope)?;
    let report = &envelope.report;
    for (field, count) in [("queueLen", report.queue_len), ("running", report.running)] {
        if count > config.most_requests {
            let problem = format!("{count} requests; more than {} on one shard cannot be", config.most_requests);
            return Err(InvalidInput::new(field, problem));
        }
    }
    if report.mean_latency_ms > LONGEST_MEAN_MS {
        return Err(InvalidInput::new("meanLatencyMs", format!("{} ms is more than a day", report.mean_latency_ms)));
    }
    let ahead_ms = report.event_at.millis_since(received_at);
    if ahead_ms > config.most_clock_ahead_ms {
        let problem = format!("{:.1} s ahead of the router's clock: one of the two is wrong", ahead_ms / 1e3);
        return Err(InvalidInput::new("eventAt", problem));
    }
    check_standing(envelope)
}

/// The checks that a fleet out of a file must pass, too.
fn check_ranges(envelope: &Envelope) -> Result<(), InvalidInput> {
    let nowhere = envelope.shape.region.clone();
    let network =
        Network { regions: Vec::new(), rtt_ms: Vec::new(), exchanges: Vec::new(), default_region: nowhere.clone() };
    let (id, shape) = (envelope.shard.clone(), envelope.shape.clone());
    let shard = ShardSnapshot { id, shape, report: Some(envelope.report.clone()) };
    FleetSnapshot::new(vec![shard], network, nowhere).map(drop)
}

fn check_standing(envelope: &Envelope) -> Result<(), InvalidInput> {
    let (standing, cores) = (&envelope.standing, envelope.shape.cores);
    for (field, value, most) in [
        ("load", standing.load, 1.0),
        ("health", standing.health, 1.0),
        ("remainingCores", standing.remaining_cores, cores),
    ] {
        if !(0.0..=most).contains(&value) {
            return Err(InvalidInput::new(field, format!("{value} must lie between 0 and {most}")));
        }
    }
    Ok(())
}
