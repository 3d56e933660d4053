//! `shardwise bench`: how fast the parts that routers embed are on this machine.

mod decide;
mod score;

pub(crate) use decide::{Row as DecideRow, decide, measured};
pub(crate) use score::score;
