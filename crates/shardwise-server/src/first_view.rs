//! The fleet as a router sees it when it starts.

use shardwise_monitor::{FleetImage, FleetView, FleetViewConfig};
use shardwise_types::{FleetSnapshot, InvalidInput, ReportRecord, RouterId, ShardSnapshot, Timestamp};

use crate::config::{ConfigError, ServeConfig};
use crate::sidecar::StartError;

/// The fleet as it was remembered, or as the file says, until the shards themselves report.
pub(crate) fn first_view(
    config: &ServeConfig,
    image: FleetImage,
    now: Timestamp,
) -> Result<(FleetView, Vec<ReportRecord>), StartError> {
    let path = &config.fleet;
    let wrong = |problem: String| ConfigError::new(path.display().to_string(), problem);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot read the fleet: {error}")))?;
    let fleet = FleetSnapshot::from_json(&text).map_err(|error| wrong(error.to_string()))?;
    let settings = FleetViewConfig {
        stale_after_ms: config.stale_after_ms.max(FleetViewConfig::default().report_period_ms),
        ..FleetViewConfig::default()
    };
    let is_new = image == FleetImage::default();
    let view = FleetView::restore(image, settings, fleet.network, fleet.router_region)
        .map_err(|error: InvalidInput| wrong(error.to_string()))?;
    let shards = if is_new { fleet.shards } else { Vec::new() };
    let router = RouterId::new(&config.router);
    let stand_ins = shards.into_iter().filter_map(|shard| stand_in(&view, &router, shard, now)).collect();
    Ok((view, stand_ins))
}

/// Until a shard reports, what the file says of it is taken for a report of now.
fn stand_in(view: &FleetView, router: &RouterId, shard: ShardSnapshot, now: Timestamp) -> Option<ReportRecord> {
    let ShardSnapshot { id, shape, report } = shard;
    let Some(mut report) = report else {
        tracing::info!(shard = id.as_str(), "the fleet file has no report of it; it is known when it reports");
        return None;
    };
    (report.event_at, report.known_at) = (now, now);
    let record = ReportRecord { sequence: 0, router: Some(router.clone()), shard: id, shape, report };
    view.recover(&record);
    Some(record)
}
