//! Reports over NATS: delivered, heard, kept, acknowledged.

use std::sync::Arc;

use shardwise_monitor::{BusError, Follower, FollowerConfig, Ingested, NatsBus, NatsConfig, ReportSink, SinkError};
use shardwise_types::{ReportRecord, ShardId};
use tokio::sync::watch;

use crate::keeper::{Keep, Line};
use crate::live::Live;

/// Hears a report, and has the journal keep it.
struct Journaled {
    live: Arc<Live>,
    keep: Keep,
}

impl ReportSink for Journaled {
    fn append(&self, record: &ReportRecord) -> Result<(), SinkError> {
        self.keep.durably(record.clone().into()).map_err(SinkError::from)
    }

    fn append_late(&self, record: &ReportRecord) -> Result<(), SinkError> {
        self.keep.durably(Line::late(record.clone())).map_err(SinkError::from)
    }

    fn take_in(&self, take: &dyn Fn() -> Ingested) -> Ingested {
        self.live.take_in(take)
    }

    fn let_go(&self, tick: &dyn Fn() -> Vec<ShardId>) -> Vec<ShardId> {
        self.live.let_go(tick)
    }
}

/// Connects; a server that is not there is waited for while decisions are made without its reports.
///
/// # Errors
/// The address is none.
pub(crate) async fn connect(url: &str, router: &str) -> Result<NatsBus, BusError> {
    let servers = vec![url.to_owned()];
    NatsBus::connect(NatsConfig { servers, client_name: format!("shardwise {router}"), ..NatsConfig::default() }).await
}

/// Follows the reports of all shards until the server ends.
pub(crate) async fn follow(
    bus: Arc<NatsBus>,
    live: Arc<Live>,
    keep: Keep,
    router: String,
    mut ended: watch::Receiver<bool>,
) {
    let (view, clock) = (Arc::clone(&live.view), Arc::clone(&live));
    let sink = Arc::new(Journaled { live, keep });
    let follower = Follower::new(view, sink, Arc::new(move || clock.clock.now()), FollowerConfig::default());
    let stop = async move {
        // The sender lives as long as the server.
        _ = ended.wait_for(|ended| *ended).await;
    };
    if let Err(error) = follower.run(bus.as_ref(), &router, stop).await {
        tracing::error!(%error, "reports over NATS are not followed any more");
    }
}
