//! The sidecar that answers over HTTP, its dashboard, and the reference shard.

pub mod fleet_up;
pub mod shard;
