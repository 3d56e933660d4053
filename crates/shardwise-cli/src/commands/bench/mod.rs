//! `shardwise bench`: how fast the parts that routers embed are on this machine.

mod decide;
mod score;

pub(crate) use decide::decide;
pub(crate) use score::score;
