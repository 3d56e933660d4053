//! Trains the neural execution head: what the head of trees learns, on the same rows, with `burn` on the processor.
//!
//! A workspace of its own, so that nobody waits for `burn` who does not train with it. Left out: how the head is served, which is
//! `shardwise-models`' matter, and how it compares with trees, which `shardwise onnx compare` finds.
//!
//! ```no_run
//! use shardwise_models::{ExecRows, onnx::export_neural};
//! use shardwise_neural::{FitOptions, fit};
//!
//! let rows = ExecRows::from_bytes(&std::fs::read("rows.bin")?)?;
//! let fitted = fit(&rows, &FitOptions::default(), &mut |_| ())?;
//! std::fs::write("exec.onnx", export_neural(&fitted.head, &[]))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fit;
mod network;
mod options;

pub use fit::{Fitted, fit};
pub use network::Network;
pub use options::{FitError, FitOptions};
