//! What a router can be told about time and breakers; everything else that it knows it learns.

use serde::{Deserialize, Serialize};

/// The shortest time after which an outcome may be given up, in ms: generations are numbered in 40 bits.
const MIN_LOST_AFTER_MS: f64 = 10.0;

/// Limits of a [`RouterState`](super::RouterState).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RouterConfig {
    /// A request whose outcome has not come after so many ms is lost: it stops counting as in flight at some time between
    /// this and twice this. At least the longest timeout, and at least 10.
    pub lost_after_ms: f64,
    /// A shard that first reports later than so many ms after the first report of any is new, in ms.
    pub start_grace_ms: f64,
    /// The largest share of the fleet's shards that may be ejected at once, rounded down, in [0, 1].
    pub max_ejected_share: f64,
}

impl Default for RouterConfig {
    /// Half a minute, five seconds, half of the fleet.
    fn default() -> Self {
        Self { lost_after_ms: 30_000.0, start_grace_ms: 5_000.0, max_ejected_share: 0.5 }
    }
}

impl RouterConfig {
    /// The same with every limit in its range.
    #[must_use]
    pub(super) fn in_range(self) -> Self {
        Self {
            lost_after_ms: self.lost_after_ms.max(MIN_LOST_AFTER_MS),
            start_grace_ms: self.start_grace_ms.max(0.0),
            max_ejected_share: self.max_ejected_share.clamp(0.0, 1.0),
        }
    }
}
