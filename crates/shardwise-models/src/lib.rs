//! Placeholder.

pub mod forest;
