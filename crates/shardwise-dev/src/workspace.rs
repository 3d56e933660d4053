//! Where things are — the checkout and its target folder — and how cargo is called in it.
//!
//! Calls get a clean environment: what the cargo that started `cargo dev` set for this program is taken out again, so
//! that the very same build is found fresh whether it is started from here or by hand.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// Variables by name, in a fixed order.
pub(crate) type Variables = BTreeMap<&'static str, OsString>;

/// What `cargo run` sets for the program that it runs.
const SET_BY_CARGO_RUN: &[&str] =
    &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];

const LIBRARY_PATHS: &[&str] = &["LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"];

/// The checkout that `cargo dev` works on.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Finds the checkout from the working folder upward, and the target folder as cargo would.
    pub(crate) fn find() -> Result<Self, Failure> {
        let here = env::current_dir().map_err(|error| Failure::new(format!("there is no working folder: {error}")))?;
        let Some(root) = here.ancestors().find(|folder| is_root(folder)) else {
            return Err(Failure::new(format!(
                "{} lies in no checkout of shardwise: run `cargo dev` inside one",
                here.display()
            )));
        };
        let asked = env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
        let target = asked.map_or_else(|| root.join("target"), |folder| here.join(folder));
        Ok(Self { root: root.to_path_buf(), target })
    }

    /// A program, to be run in the root without anything that only concerns `cargo dev` itself.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        for (name, _) in env::vars_os().filter(|(name, _)| is_set_by_cargo_run(name)) {
            command.env_remove(name);
        }
        for name in LIBRARY_PATHS {
            self.clean_library_path(&mut command, name);
        }
        command
    }

    fn clean_library_path(&self, command: &mut Command, name: &str) {
        let Some(value) = env::var_os(name) else { return };
        let foreign = without_folders_under(&value, &[Some(self.target.clone()), toolchain()]);
        match foreign {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }

    /// Runs cargo with output straight to the terminal.
    pub(crate) fn cargo(&self, call: &CargoCall<'_>, variables: &Variables) -> Result<(), Failure> {
        let mut command = self.command(cargo_program());
        command.args(call.arguments).envs(variables).envs(call.variables.iter().copied());
        run(&mut command, &call.to_string())
    }
}

/// One call of cargo, which can be run and be shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CargoCall<'a> {
    pub(crate) variables: &'a [(&'a str, &'a str)],
    pub(crate) arguments: &'a [&'a str],
}

impl std::fmt::Display for CargoCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in self.variables {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "cargo {}", self.arguments.join(" "))
    }
}

/// Runs a command to its end; anything but success is a failure told as `shown`.
pub(crate) fn run(command: &mut Command, shown: &str) -> Result<(), Failure> {
    let status = command.status().map_err(|error| Failure::new(format!("cannot start `{shown}`: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::command(shown, status)) }
}

/// A value in single quotes, as a POSIX shell reads it.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn is_root(folder: &Path) -> bool {
    folder.join("Cargo.toml").is_file() && folder.join("crates/shardwise-dev/Cargo.toml").is_file()
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The toolchain that started this program: cargo adds its libraries to the search path of what it runs.
fn toolchain() -> Option<PathBuf> {
    let cargo = PathBuf::from(env::var_os("CARGO")?);
    let toolchain = cargo.parent()?.parent()?;
    toolchain.join("lib/rustlib").is_dir().then(|| toolchain.to_path_buf())
}

fn is_set_by_cargo_run(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    SET_BY_CARGO_RUN.iter().any(|start| name.starts_with(start))
}

/// The search path without what lies under `parents`; `None` when nothing is left.
fn without_folders_under(search_path: &OsStr, parents: &[Option<PathBuf>]) -> Option<OsString> {
    let ours = |folder: &PathBuf| parents.iter().flatten().any(|parent| folder.starts_with(parent));
    let kept: Vec<PathBuf> = env::split_paths(search_path).filter(|folder| !ours(folder)).collect();
    if kept.iter().all(|folder| folder.as_os_str().is_empty()) { None } else { env::join_paths(kept).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_runner_itself_is_taken_out() {
        for name in ["CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_CRATE_NAME"] {
            assert!(is_set_by_cargo_run(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "PATH", "RUSTFLAGS"] {
            assert!(!is_set_by_cargo_run(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_library_path_keeps_what_the_developer_put_there() {
        let parents = [Some(PathBuf::from("/home/me/target")), None];
        let left = |path: &str| without_folders_under(OsStr::new(path), &parents);
        assert_eq!(left("/home/me/target/debug/deps:/opt/lib:/home/me/target/debug"), Some("/opt/lib".into()));
        assert_eq!(left("/home/me/target/debug"), None);
    }

    #[test]
    fn calls_are_shown_as_they_are_typed() {
        let call = CargoCall { variables: &[("RUSTDOCFLAGS", "-D warnings")], arguments: &["doc", "--no-deps"] };
        assert_eq!(call.to_string(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
