//! Old runs make way: the newest ended ones are kept, and all that may still go on.

use std::fs;
use std::path::{Path, PathBuf};

use shardwise_types::Timestamp;

use super::run_folder::{RUN_FILE, RUNS, RunState, Status, read_json};
use crate::output::progress;

/// Removes the oldest ended runs, so that at most `keep` are left; the newest run of all is never removed. Returns how many
/// went.
pub(crate) fn remove_old_runs(work: &Path, keep: usize) -> usize {
    let runs = work.join(RUNS);
    let mut all: Vec<(RunState, PathBuf)> = fs::read_dir(&runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            // `latest` is a link to one of the others.
            let is_run = path.is_dir() && !path.is_symlink();
            is_run.then(|| Some((read_json(&path.join(RUN_FILE))?, path))).flatten()
        })
        .collect();
    // By time and not by text, in which fractions of a second sort wrongly.
    all.sort_by_key(|(state, _)| std::cmp::Reverse(state.started.parse::<Timestamp>().ok()));
    let newest = all.first().map(|(_, path)| path.clone());
    let ended = all.into_iter().filter(|(state, _)| matches!(state.status, Status::Finished | Status::Failed));
    let old = ended.skip(keep).map(|(_, path)| path).filter(|path| Some(path) != newest.as_ref());
    old.filter(|path| remove(&runs, path)).count()
}

/// Renamed first: a run that is half removed must not look like one that may still go on.
fn remove(runs: &Path, path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let gone = runs.join(format!(".removed-{name}"));
    let removed = fs::rename(path, &gone).and_then(|()| fs::remove_dir_all(&gone));
    if let Err(error) = &removed {
        progress::warn(format!("the old run {} cannot be removed: {error}", path.display()));
    }
    removed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::files;

    fn run(work: &Path, day: u32, status: Status) {
        let date = format!("2026-01-{day:02}");
        let state = RunState {
            date: date.clone(),
            key: "k".to_owned(),
            status,
            attempts: 1,
            started: format!("{date}T02:00:00Z"),
            ended: None,
            exit_code: None,
            outcome: None,
            version: None,
            champion: None,
            error: None,
        };
        files::write_json(&work.join(RUNS).join(format!("{date}-k")).join(RUN_FILE), &state).expect("writable");
    }

    fn days_left(work: &Path) -> Vec<String> {
        let names = fs::read_dir(work.join(RUNS)).expect("readable").map(|entry| entry.expect("an entry").file_name());
        let mut days: Vec<String> = names.map(|name| name.to_string_lossy()[8..10].to_owned()).collect();
        days.sort();
        days
    }

    #[test]
    fn the_oldest_ended_runs_go_and_the_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let work = folder.path();
        for (day, status) in [
            (1, Status::Finished),
            (2, Status::Interrupted),
            (3, Status::Failed),
            (4, Status::Running),
            (5, Status::Finished),
            (6, Status::Finished),
        ] {
            run(work, day, status);
        }
        assert_eq!(remove_old_runs(work, 30), 0);
        assert_eq!(remove_old_runs(work, 2), 2);
        assert_eq!(days_left(work), ["02", "04", "05", "06"]);
        assert_eq!(remove_old_runs(work, 0), 1, "the newest stays even then");
        assert_eq!(days_left(work), ["02", "04", "06"]);
    }
}
