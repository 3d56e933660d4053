//! A night that is killed at any moment goes on to the same bytes. `SHARDWISE_KILLS=50` kills as often.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::nights::{reference, start};
use crate::support::contents;

/// Kills when nobody asks for more; each takes about as long as two nights.
const KILLS: u32 = 3;

/// The bytes of one version, without where they lie. Signatures are no part of a model, and there are none here.
fn model(work: &Path, version: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = work.join("models/default/versions").join(version);
    let files = contents(&folder).into_iter();
    files.map(|(path, bytes)| (path.strip_prefix(&folder).expect("below it").to_owned(), bytes)).collect()
}

fn leftovers(work: &Path) -> Vec<PathBuf> {
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    ["", "stages", "decision", "report", "runs", "runs/latest"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(work.join(folder)).expect("readable"))
        .map(|entry| entry.expect("an entry").path())
        .filter(hidden)
        .collect()
}

/// Kills a night; whether it was still at work.
fn is_killed_after(after_ms: f64, history: &Path, work: &Path) -> bool {
    let mut child = start(history, work);
    std::thread::sleep(Duration::from_secs_f64(after_ms / 1000.0));
    child.kill().expect("it can be killed");
    child.wait().expect("it ends").code().is_none()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a whole night is timed, so that kills fall anywhere in it")]
fn a_night_killed_at_any_moment_goes_on_to_the_same_bytes() {
    let kills =
        std::env::var("SHARDWISE_KILLS").map_or(KILLS, |number| number.parse().expect("SHARDWISE_KILLS is a number"));
    let reference = reference();
    let (history, expected) = (reference.history(), reference.result());
    let version = expected["model"]["version"].as_str().expect("a version");
    let bytes = model(&reference.work(), version);
    assert!(bytes.len() > 3, "{bytes:?}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let began = Instant::now();
    let whole = start(&history, &folder.path().join("timed")).wait_with_output().expect("it ends");
    assert_eq!(whole.status.code(), Some(3));
    let night_ms = began.elapsed().as_secs_f64() * 1000.0;

    let mut dice = StdRng::seed_from_u64(1);
    let mut said = String::new();
    for kill in 0..kills {
        let work = folder.path().join(format!("work-{kill}"));
        // One in each part of the night, so that few kills meet more than the training.
        let mut after_ms = night_ms * (f64::from(kill) + dice.random::<f64>()) / f64::from(kills);
        while !is_killed_after(after_ms, &history, &work) {
            // The machine is faster now than when the night was timed.
            std::fs::remove_dir_all(&work).expect("removable");
            after_ms /= 2.0;
        }
        let output = start(&history, &work).wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "after a kill at {after_ms:.0} ms: {stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let result: Value = serde_json::from_str(stdout.lines().last().expect("a result")).expect("JSON");
        for field in ["dataset", "verified", "model", "heads", "closed_loop", "decision"] {
            assert_eq!(result[field], expected[field], "{field} after a kill at {after_ms:.0} ms");
        }
        assert!(model(&work, version) == bytes, "other bytes after a kill at {after_ms:.0} ms");
        assert!(leftovers(&work).is_empty(), "left after a kill at {after_ms:.0} ms: {:?}", leftovers(&work));
        said += &format!(" {after_ms:.0}");
        std::fs::remove_dir_all(&work).expect("removable");
    }
    println!("{kills} nights of about {night_ms:.0} ms were killed at{said} ms");
}
