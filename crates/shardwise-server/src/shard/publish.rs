//! Who hears of a shard's reports.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardwise_types::{ShardId, ShardReport, ShardShape, Timestamp};
use tracing::{info, warn};

use super::clock;
use super::workers::Workers;

/// Where routers take reports.
const PATH: &str = "/v1/reports";
/// A router that does not take a report within this misses it: the next one is on its way.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A report, and what a router that never heard of the shard needs to know of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// The shard.
    pub shard: ShardId,
    /// What does not change about it.
    pub shape: ShardShape,
    /// Where it takes requests, as `http://host:port`.
    pub address: String,
    /// Another one after each start.
    pub boot_id: String,
    /// Counts the reports of one start from 1.
    pub sequence: u64,
    /// When it was measured, by the shard's clock.
    pub event_at: Timestamp,
    /// The report. Its `knownAt` is the shard's clock as well: whoever learns it puts in when.
    pub report: ShardReport,
}

/// Takes the reports of a shard; it is called from a thread that does nothing else, and may take its time.
pub trait Publish: Send {
    /// Takes one report.
    fn publish(&mut self, announcement: &Announcement);
}

impl<F: FnMut(&Announcement) + Send> Publish for F {
    fn publish(&mut self, announcement: &Announcement) {
        self(announcement);
    }
}

/// Posts reports to routers, one after the other. A router that cannot be reached misses the report.
pub struct HttpPublisher {
    agent: ureq::Agent,
    routers: Vec<Router>,
}

struct Router {
    url: String,
    reached: bool,
}

impl HttpPublisher {
    /// Posts to the routers at these addresses, written as `http://host:port`.
    pub fn new(routers: &[String]) -> Self {
        let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(TIMEOUT)).build();
        let router = |url: &String| Router { url: format!("{}{PATH}", url.trim_end_matches('/')), reached: true };
        Self { agent: config.new_agent(), routers: routers.iter().map(router).collect() }
    }
}

impl Publish for HttpPublisher {
    fn publish(&mut self, announcement: &Announcement) {
        let body = serde_json::to_string(announcement).expect("a report has nothing that JSON lacks");
        for router in &mut self.routers {
            let answer = self.agent.post(&router.url).content_type("application/json").send(&body);
            match (&answer, router.reached) {
                (Err(error), true) => warn!(router = router.url, %error, "reports do not reach the router"),
                (Ok(_), false) => info!(router = router.url, "reports reach the router again"),
                _ => {}
            }
            router.reached = answer.is_ok();
        }
    }
}

/// Who reports, apart from the report itself.
pub(super) struct Reporter {
    pub(super) shard: ShardId,
    pub(super) shape: ShardShape,
    pub(super) address: String,
    pub(super) boot_id: String,
    pub(super) every: Duration,
}

impl Reporter {
    /// Reports at once and then every so often, until the sender of `ended` is gone; then once more.
    pub(super) fn run(&self, workers: &Workers, publish: &mut dyn Publish, ended: &Receiver<()>) {
        let mut due = clock::now();
        for sequence in 1.. {
            publish.publish(&self.announcement(workers, sequence));
            // What took too long to publish is not made up for.
            due = (due + self.every).max(clock::now());
            let wait = due.saturating_duration_since(clock::now());
            if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return publish.publish(&self.announcement(workers, sequence + 1));
            }
        }
    }

    fn announcement(&self, workers: &Workers, sequence: u64) -> Announcement {
        let report = workers.report(clock::now());
        Announcement {
            shard: self.shard.clone(),
            shape: self.shape.clone(),
            address: self.address.clone(),
            boot_id: self.boot_id.clone(),
            sequence,
            event_at: report.event_at,
            report,
        }
    }
}
