//! What the tests share: the repository, the built binary, runs of it, and one small finished night.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// The `shardwise` binary beside this test's own folder.
pub(crate) fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let binary = test.ancestors().nth(2).expect("target/PROFILE/deps/test").join("shardwise");
    assert!(binary.exists(), "{} is not built; run cargo build --release --workspace first", binary.display());
    binary
}

/// Says that a test was skipped; straight to the terminal, for the test runner swallows what passing tests print.
pub(crate) fn skipped(why: &str) {
    // Nothing is lost but the note when standard error is closed.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A call of `shardwise` that tells no tracking server of whoever runs the tests.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("MLFLOW_TRACKING_URI");
    command
}

/// Runs `shardwise`.
pub(crate) fn shardwise(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary starts")
}

/// Runs `shardwise … --json` and reads the last line of its output. A night whose model the gate refuses is a whole night.
pub(crate) fn json(arguments: &[&str]) -> Value {
    let output = shardwise(&[arguments, &["--json"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let is_whole = output.status.success() || (arguments[0] == "nightly" && output.status.code() == Some(3));
    assert!(is_whole, "{arguments:?} failed:\n{stderr}");
    let last = stdout.lines().last().unwrap_or_else(|| panic!("{arguments:?} printed nothing"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {last}"))
}

/// Runs `shardwise` on input that it must refuse; returns what it said on one line, as a narrow terminal wraps it.
pub(crate) fn refused(arguments: &[&str]) -> String {
    let output = shardwise(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} was accepted");
    assert_eq!(output.status.code(), Some(1), "{arguments:?} must fail in an orderly way:\n{said}");
    let words: Vec<&str> = said.split_whitespace().filter(|word| !matches!(*word, "│" | "╰─▶" | "├─▶")).collect();
    words.join(" ")
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A night on a small history, done once for all tests that only read it.
pub(crate) struct Night {
    /// Holds `history` and `work`.
    pub(crate) folder: TempDir,
    /// What `nightly --json` printed.
    pub(crate) result: Value,
}

impl Night {
    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Seed of the night's history. On a minute of traffic a model is not always shown to be better; here it is, and is published, which
/// the tests of what comes after need.
pub(crate) const NIGHT_SEED: &str = "1";

/// The finished night.
pub(crate) fn night() -> &'static Night {
    static NIGHT: LazyLock<Night> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (history, work) = (folder.path().join("history"), folder.path().join("work"));
        small_history(&history, NIGHT_SEED);
        let result = json(&["nightly", "--history", text(&history), "--work", text(&work), "--replicates", "4"]);
        Night { folder, result }
    });
    &NIGHT
}

/// A history of a minute of traffic.
pub(crate) fn small_history(out: &Path, seed: &str) {
    json(&["history", "simulate", "--fleet-seed", "3", "--seed", seed, "--hours", "0.016", "--out", text(out)]);
}

/// All files below a folder with their contents, sorted by path.
pub(crate) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a readable file");
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}
