//! What a router remembers over a restart: what it learned of shards and functions, and the fleet as it last saw it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shardwise_features::{RouterImage, RouterState};
use shardwise_monitor::FleetImage;
use shardwise_types::Timestamp;

use crate::files;
use crate::live::Live;

/// What is written. It is read back by the same fields, as one that owns.
#[derive(Serialize, Deserialize)]
struct Memory {
    router: RouterImage,
    fleet: FleetImage,
}

/// Writes what is remembered.
pub(crate) fn save(path: &Path, live: &Live) -> io::Result<()> {
    // One at a time: they write the same file beside.
    static SAVING: Mutex<()> = Mutex::new(());
    let _saving = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = Memory { router: live.router.save(), fleet: live.view.image() };
    files::replace(path, &serde_json::to_vec(&memory)?)
}

/// What was remembered, for a process that starts at `now`. Memory is a help, not a condition: what cannot be read is said
/// and done without.
pub(crate) fn restore(path: &Path, now: Timestamp) -> Option<(RouterState, FleetImage)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was remembered cannot be read; starting without it");
            return None;
        }
    };
    let memory = serde_json::from_slice::<Memory>(&bytes).map_err(|error| error.to_string());
    let restored = memory.and_then(|memory| {
        let router = RouterState::restore_after_restart(&memory.router, now).map_err(|error| error.to_string())?;
        Ok((router, memory.fleet))
    });
    restored
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), error, "what was remembered is damaged; starting without it");
        })
        .ok()
}
