//! What can be wrong with an ONNX model or with what runs it.

use std::io;
use std::path::PathBuf;

/// Says why a model cannot be written, opened or asked.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// A leaf or a sum of leaves is no 32-bit float, which ONNX trees add up.
    #[error("the forest says numbers beyond 32-bit floats, which ONNX trees cannot express: train on smaller labels")]
    NotSingle,
    /// The file cannot be read.
    #[error("{}: the ONNX model cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is larger than any that is opened.
    #[error("{}: larger than the {limit} bytes that are allowed for an ONNX model", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The bytes are something else.
    #[error("{}: not an ONNX model: {problem}; export it again", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Input or output are not those of a head.
    #[error("{}: {problem}; export it for floats [N, {width}] and one float for each row", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// Features in a row.
        width: usize,
    },
    /// The model reads features that are computed in another way, or does not say which.
    #[error("{}: the model was made for the features {found}, but this version computes {expected}; train it again, or allow any features explicitly", path.display())]
    Fingerprint {
        /// The file.
        path: PathBuf,
        /// The model's, or that it names none.
        found: String,
        /// This version's.
        expected: &'static str,
    },
    /// The model is no neural head as [`super::export_neural`] writes it.
    #[error("not a neural head of shardwise: {problem}; export it again, or let ONNX Runtime answer")]
    NotNeural {
        /// What is wrong.
        problem: String,
    },
    /// ONNX Runtime is nowhere.
    #[error("no ONNX Runtime: set ORT_DYLIB_PATH to its libonnxruntime.so, or install the Python package onnxruntime into the environment of `cargo dev setup`; looked for {}", looked_for.join(", "))]
    NoLibrary {
        /// Where it was looked for.
        looked_for: Vec<String>,
    },
    /// The library cannot be used.
    #[error("{}: cannot be used as ONNX Runtime: {problem}; set ORT_DYLIB_PATH to another", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A process has one library.
    #[error("{} is loaded already, {} cannot be as well: start another process for it", loaded.display(), wanted.display())]
    SecondLibrary {
        /// The first library.
        loaded: PathBuf,
        /// The other.
        wanted: PathBuf,
    },
    /// ONNX Runtime refuses the model or a run of it.
    #[error("ONNX Runtime refuses {what}: {problem}")]
    Refused {
        /// The model or the rows.
        what: String,
        /// What it says.
        problem: String,
    },
    /// The rows are not what the model reads.
    #[error("{values} values are not {rows} rows of {width}")]
    Rows {
        /// Values given.
        values: usize,
        /// Answers asked for.
        rows: usize,
        /// Features in a row.
        width: usize,
    },
    /// The model answers another number of rows than it was asked about.
    #[error("the ONNX model gives {found} answers to {expected} rows: export it with one output for each row")]
    Answers {
        /// Rows.
        expected: usize,
        /// Answers.
        found: usize,
    },
    /// An answer is no number to decide by.
    #[error("the ONNX model answers {value} to row {row}: it must answer finite numbers, also to missing values")]
    NotFinite {
        /// The row.
        row: usize,
        /// The answer.
        value: f64,
    },
}
