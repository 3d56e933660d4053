//! The tasks themselves: which steps each takes, in which order.
//!
//! Every cargo call builds the whole workspace in release mode: any other selection would unify the features of
//! dependencies otherwise, and build the heavy ones again.

use crate::arguments::{self, Task};
use crate::build_env;
use crate::debian;
use crate::failure::Failure;
use crate::feature_page;
use crate::neural;
use crate::python::{PythonEnv, remove_folder};
use crate::steps::{Steps, Stopwatch, seconds};
use crate::workspace::{CargoCall, Variables, Workspace, quoted};

const FORMAT: CargoCall = plain(&["fmt", "--all", "--check"]);
const CLIPPY: CargoCall = plain(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]);
const BUILD: CargoCall = plain(&["build", "--release", "--workspace"]);
const BUILD_PROGRAMS: CargoCall = plain(&["build", "--release", "--workspace", "--bins"]);
const TEST: CargoCall = plain(&["test", "--release", "--workspace"]);
/// The benchmark is a workspace of its own; that it compiles is all that is asked of it here.
const BENCHMARK: CargoCall =
    plain(&["check", "--release", "--locked", "--manifest-path", "crates/shardwise-bench/Cargo.toml"]);
const DOCUMENT: CargoCall = CargoCall {
    variables: &[("RUSTDOCFLAGS", "-D warnings")],
    arguments: &["doc", "--no-deps", "--workspace", "--release"],
};

/// How a night ends whose model was judged and not promoted.
const GATE_REFUSED: i32 = 3;

pub(crate) const fn plain(arguments: &'static [&'static str]) -> CargoCall<'static> {
    CargoCall { variables: &[], arguments }
}

/// Does one task.
pub(crate) fn perform(task: Task) -> Result<(), Failure> {
    if task == Task::Help {
        print!("{}", arguments::help_page());
        return Ok(());
    }
    perform_in(&Workspace::find()?, task)
}

fn perform_in(workspace: &Workspace, task: Task) -> Result<(), Failure> {
    match task {
        Task::Setup => set_up_for_tests(workspace).map(|_| eprintln!("setup: the environment is up to date")),
        Task::Env => print_env(workspace),
        Task::Demo => demo(workspace),
        Task::Check => check(workspace, &set_up(workspace)?),
        Task::Test => test(workspace),
        Task::Features { check: false } => feature_page::write(workspace),
        Task::Features { check: true } => feature_page::check(workspace),
        Task::Neural => neural(workspace),
        Task::Help => Ok(()),
    }
}

/// Makes the Python environment if need be, and composes the variables for all builds.
fn set_up(workspace: &Workspace) -> Result<Variables, Failure> {
    let python = PythonEnv::of(workspace);
    if !python.is_ready() {
        let steps = Steps::of("setup");
        let alone = alone(workspace, "cargo dev setup");
        steps.run("compilers", &alone, build_env::require_compilers)?;
        steps.run("python environment (some 300 MB to load, once)", &alone, || python.make())?;
        steps.finish("ready");
    }
    build_env::variables(&python)
}

/// As [`set_up`], and brings the servers that tests run against.
fn set_up_for_tests(workspace: &Workspace) -> Result<Variables, Failure> {
    let mut variables = set_up(workspace)?;
    variables.extend(debian::variables(workspace));
    Ok(variables)
}

fn print_env(workspace: &Workspace) -> Result<(), Failure> {
    for (name, value) in set_up_for_tests(workspace)? {
        println!("export {name}={}", quoted(&value.to_string_lossy()));
    }
    Ok(())
}

fn check(workspace: &Workspace, variables: &Variables) -> Result<(), Failure> {
    let steps = Steps::of("check");
    steps.run("formatting", &FORMAT.to_string(), || workspace.cargo(&FORMAT, variables))?;
    steps.run("feature page", "cargo dev features --check", || feature_page::check(workspace))?;
    steps.run("clippy", &with_variables(workspace, &CLIPPY), || workspace.cargo(&CLIPPY, variables))?;
    steps.finish("all passed");
    Ok(())
}

fn test(workspace: &Workspace) -> Result<(), Failure> {
    let steps = Steps::of("test");
    let variables = set_up_for_tests(workspace)?;
    check(workspace, &variables)?;
    for (step, call) in [("build", &BUILD), ("tests", &TEST), ("benchmark", &BENCHMARK), ("documentation", &DOCUMENT)] {
        steps.run(step, &with_variables(workspace, call), || workspace.cargo(call, &variables))?;
    }
    steps.finish("all passed");
    Ok(())
}

fn demo(workspace: &Workspace) -> Result<(), Failure> {
    let steps = Steps::of("demo");
    let building = Stopwatch::start();
    let variables = set_up(workspace)?;
    steps.run("build", &with_variables(workspace, &BUILD_PROGRAMS), || workspace.cargo(&BUILD_PROGRAMS, &variables))?;
    let build_time = building.elapsed();

    let running = Stopwatch::start();
    steps.run("nightly cycle on data/sample", &alone(workspace, "cargo dev demo"), || run_nightly(workspace))?;
    eprintln!("demo: build {}, run {}", seconds(build_time), seconds(running.elapsed()));
    Ok(())
}

/// `burn` takes minutes to build, for which `cargo dev test` does not wait.
fn neural(workspace: &Workspace) -> Result<(), Failure> {
    let steps = Steps::of("neural");
    let variables = set_up(workspace)?;
    for (step, call) in [("build", &BUILD_PROGRAMS), ("tests", &neural::TEST), ("trainer", &neural::BUILD)] {
        steps.run(step, &with_variables(workspace, call), || workspace.cargo(call, &variables))?;
    }
    steps.run("comparison", &alone(workspace, "cargo dev neural"), || neural::compare(workspace, &variables))?;
    steps.finish("done");
    Ok(())
}

/// Runs one nightly cycle in a fresh work folder, in full view.
fn run_nightly(workspace: &Workspace) -> Result<(), Failure> {
    let work = workspace.target.join("demo");
    remove_folder(&work)?;
    let program = workspace.target.join("release/shardwise");
    let mut command = workspace.command(&program);
    command.args(["nightly", "--history", "data/sample", "--work"]).arg(&work);
    let shown = format!("{} nightly --history data/sample --work {}", program.display(), work.display());
    let status = command.status().map_err(|error| Failure::new(format!("cannot start `{shown}`: {error}")))?;
    match status.code() {
        Some(0) => {}
        // The whole night was done; on so short a history a model is not always shown to be better.
        Some(GATE_REFUSED) => eprintln!("demo: the gate refused the model, as it may"),
        _ => return Err(Failure::command(&shown, status)),
    }
    let result = work.join("runs/latest/result.json");
    let written = std::fs::read_to_string(&result).map_err(|error| Failure::file("read", &result, &error))?;
    let missing = ["dataset", "verified", "model", "closed_loop", "decision", "report"]
        .into_iter()
        .find(|field| !written.contains(&format!("\"{field}\":")));
    match missing {
        None => Ok(()),
        Some(field) => Err(Failure::new(format!("{} has no `{field}`: run `{shown}` by hand", result.display()))),
    }
}

/// How to run one cargo call by hand, with the same variables as here.
fn with_variables(workspace: &Workspace, call: &CargoCall<'_>) -> String {
    alone(workspace, &format!("eval \"$(cargo dev env)\" && {call}"))
}

/// A command line for the same target folder as here.
fn alone(workspace: &Workspace, command: &str) -> String {
    if workspace.target == workspace.root.join("target") {
        return command.to_string();
    }
    format!("export CARGO_TARGET_DIR={} && {command}", quoted(&workspace.target.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(target: &str) -> Workspace {
        Workspace { root: "/shardwise".into(), target: target.into() }
    }

    #[test]
    fn a_step_by_hand_meets_the_same_target_folder_and_variables() {
        assert_eq!(
            with_variables(&workspace("/shardwise/target"), &TEST),
            "eval \"$(cargo dev env)\" && cargo test --release --workspace"
        );
        assert_eq!(
            alone(&workspace("/cache/target"), "cargo dev setup"),
            "export CARGO_TARGET_DIR='/cache/target' && cargo dev setup"
        );
    }

    #[test]
    fn every_call_that_compiles_takes_the_whole_workspace_in_release_mode() {
        for call in [CLIPPY, BUILD, BUILD_PROGRAMS, TEST, DOCUMENT] {
            for flag in ["--workspace", "--release"] {
                assert!(call.arguments.contains(&flag), "{call}");
            }
        }
    }
}
