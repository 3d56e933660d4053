//! `shardwise bench`: how fast the parts that routers embed, and the building of datasets, are on this machine.

mod dataset;
mod decide;
mod score;

pub(crate) use dataset::dataset;
pub(crate) use decide::decide;
pub(crate) use score::score;
