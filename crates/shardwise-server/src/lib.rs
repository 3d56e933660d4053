//! The sidecar that answers over HTTP, its dashboard, and the reference shard.
