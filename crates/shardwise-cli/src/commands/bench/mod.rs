//! `shardwise bench`: how fast the parts that routers embed, the building of datasets and training are on this machine.

mod dataset;
mod decide;
mod plans;
mod score;
mod train;

pub(crate) use dataset::dataset;
pub(crate) use decide::{Row as DecideRow, decide, measured};
pub(crate) use plans::plans;
pub(crate) use score::score;
pub(crate) use train::{train, train_here};
