//! `shardwise bench`: how fast the parts that routers embed, and those that train, are on this machine.

mod decide;
mod score;
mod train;

pub(crate) use decide::decide;
pub(crate) use score::score;
pub(crate) use train::{train, train_here};
