//! A sidecar on a real socket, asked by a real client.

mod access;
mod answers;
mod bad_disk;
mod history;
mod ladder;
mod limits;
mod replay;
mod schemathesis;
mod support;
#[cfg(feature = "otel")]
mod traces;
