//! Traffic splits and shard limits, changed everywhere or nowhere.
