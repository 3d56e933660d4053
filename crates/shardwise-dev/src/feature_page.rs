//! The feature reference page: generated from the feature table, kept in the repository, never edited by hand.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::workspace::Workspace;

/// Writes the page, unless it is right already.
pub(crate) fn write(workspace: &Workspace) -> Result<(), Failure> {
    if is_current(workspace)? {
        return Ok(());
    }
    let path = path(workspace);
    fs::write(&path, shardwise_features::reference_page()).map_err(|error| Failure::file("write", &path, &error))
}

/// Fails when the page is not what the feature table says.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Failure> {
    if is_current(workspace)? {
        return Ok(());
    }
    let shown = path(workspace);
    Err(Failure::new(format!("{} is out of date: run `cargo dev features` and commit it", shown.display())))
}

fn is_current(workspace: &Workspace) -> Result<bool, Failure> {
    let path = path(workspace);
    match fs::read_to_string(&path) {
        Ok(page) => Ok(page == shardwise_features::reference_page()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::file("read", &path, &error)),
    }
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.root.join("crates/shardwise-features/FEATURES.md")
}
