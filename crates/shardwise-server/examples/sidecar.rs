//! A sidecar in a program of one's own: `cargo run --release -p shardwise-server --example sidecar -- [FILE.toml]`. It answers on
//! 127.0.0.1:7070 with the sample's model and fleet until it is killed; variables such as `SHARDWISE_SERVE_LISTEN` change it.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use shardwise_server::{ServeConfig, serve};

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), Box<dyn Error>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let sample = [("models", format!("{root}/models")), ("fleet", format!("{root}/data/sample-fleet.json"))];
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    let config = ServeConfig::load(file.as_deref(), std::env::vars(), if file.is_some() { &[] } else { &sample })?;
    let summary = serve(config, &STOP, |started| println!("{}", serde_json::to_string(started).expect("plain data")))?;
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}
