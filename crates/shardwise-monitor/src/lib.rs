//! What shards measure and publish, and what routers make of it.
