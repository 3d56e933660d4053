//! What no single crate can claim: the architecture's invariants, the command line, whole runs. One binary.

mod architecture;
mod bad_input;
mod bench_dataset;
mod command_line;
mod datasets;
mod decisions;
mod deploy;
mod encodings;
mod evaluate;
mod explain;
mod http;
mod import;
mod import_prometheus;
mod import_rows;
mod judge;
mod kills;
mod mlflow;
mod mlflow_server;
mod models;
mod neural;
mod nights;
mod onnx;
mod python;
mod support;
mod tables;
mod training;
