//! The neural head beside trees, from a simulated history to the table: one command after the other, in full view.

use std::ffi::OsStr;

use crate::failure::Failure;
use crate::python::remove_folder;
use crate::tasks::plain;
use crate::workspace::{CargoCall, Variables, Workspace, run};

/// The trainer is a workspace of its own.
pub(crate) const TEST: CargoCall =
    plain(&["test", "--release", "--locked", "--manifest-path", "crates/shardwise-neural/Cargo.toml"]);
pub(crate) const BUILD: CargoCall =
    plain(&["build", "--release", "--locked", "--manifest-path", "crates/shardwise-neural/Cargo.toml"]);

/// Seed of the fleet and of its traffic; lower ones are for tuning.
const SEED: &str = "11";
/// Hours of traffic to learn from and to be judged on.
const HOURS: &str = "0.1";

/// Makes a history, trains both heads on it and prints how they compare.
pub(crate) fn compare(workspace: &Workspace, variables: &Variables) -> Result<(), Failure> {
    let work = workspace.target.join("neural");
    remove_folder(&work)?;
    std::fs::create_dir_all(&work).map_err(|error| Failure::file("make", &work, &error))?;
    let [history, dataset, rows, head] = ["history", "dataset", "rows.bin", "exec.onnx"].map(|name| work.join(name));
    let [history, dataset, rows, head] = [&history, &dataset, &rows, &head].map(|path| path.as_os_str());
    let words =
        |words: &[&'static str]| -> Vec<&'static OsStr> { words.iter().map(|word| OsStr::new(*word)).collect() };
    let simulate = words(&["history", "simulate", "--fleet-seed", SEED, "--seed", SEED, "--hours", HOURS, "--out"]);
    let [of_history, of_dataset, of_rows, out] = ["--history", "--dataset", "--rows", "--out"].map(OsStr::new);
    let calls = [
        ("shardwise", [&simulate[..], &[history]].concat()),
        ("shardwise", [&words(&["dataset", "build"])[..], &[of_history, history, out, dataset]].concat()),
        ("shardwise", [&words(&["dataset", "rows"])[..], &[of_dataset, dataset, out, rows]].concat()),
        ("shardwise-neural", vec![of_rows, rows, out, head]),
        ("shardwise", [&words(&["onnx", "compare"])[..], &[head, of_history, history, of_dataset, dataset]].concat()),
    ];
    for (program, arguments) in calls {
        let path = workspace.target.join("release").join(program);
        let typed: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        let shown = format!("{} {}", path.display(), typed.join(" "));
        eprintln!("{shown}");
        run(workspace.command(&path).args(&arguments).envs(variables), &shown)?;
    }
    Ok(())
}
