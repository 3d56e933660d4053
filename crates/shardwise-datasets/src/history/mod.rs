//! Histories on disk: five Hive-partitioned Parquet tables, the topology, and the simulated world when there is one.

mod reader;
mod records;
mod writer;

pub use reader::History;
pub use records::Records;
pub use writer::{HistorySummary, HistoryWriter};

pub(crate) use reader::{check_range, day_start};

/// The file with the fleet's distances.
pub(crate) const TOPOLOGY_FILE: &str = "topology.json";
/// The file with what only a simulator knows.
pub(crate) const WORLD_FILE: &str = "world.json";
