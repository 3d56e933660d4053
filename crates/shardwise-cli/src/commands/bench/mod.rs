//! `shardwise bench`: how fast the parts that routers embed are on this machine.

mod decide;

pub(crate) use decide::decide;
