//! One night at a time in a work folder, and what killed nights left there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use miette::miette;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::environment::host;
use super::failure::{Kind, NightFailure, NightResult};
use crate::output::{self, progress};

const LOCK_FILE: &str = "lock";

/// Held while a night works; the system lets go of it when the process ends, however it ends.
pub(crate) struct WorkLock {
    _file: File,
}

#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    since: String,
}

impl WorkLock {
    /// Takes the lock of a work folder, which is made if need be.
    pub(crate) fn take(work: &Path) -> NightResult<Self> {
        let path = work.join(LOCK_FILE);
        let wrong = |error: std::io::Error| NightFailure::from(miette!("cannot use {}: {error}", path.display()));
        fs::create_dir_all(work).map_err(wrong)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(work, &path)),
            // Some network file systems have no locks; whoever schedules nights must keep them apart there.
            Err(TryLockError::Error(error)) => {
                progress::warn(format!("{} cannot be locked ({error}): run one night at a time here", path.display()));
            }
        }
        let holder = Holder { pid: std::process::id(), host: host(), since: output::wall_clock().to_string() };
        let text = json!(holder).to_string();
        // In place: a lock belongs to the file and not to its name.
        file.set_len(0).and_then(|()| writeln!(file, "{text}")).map_err(wrong)?;
        clear_leftovers(work);
        Ok(Self { _file: file })
    }
}

fn held(work: &Path, path: &Path) -> NightFailure {
    // What holds it may be just writing who it is.
    let holder = fs::read_to_string(path).ok().and_then(|text| serde_json::from_str::<Holder>(&text).ok());
    let (who, stop) = match &holder {
        Some(Holder { pid, host, since }) => {
            (format!("process {pid} on {host}, since {since}"), format!("`kill -TERM {pid}` on {host}"))
        }
        None => ("a process that has just started".to_owned(), "SIGTERM to it".to_owned()),
    };
    let help =
        format!("wait until it has ended, or stop it with {stop}; the lock goes with it, nothing is to be removed");
    NightFailure::new(Kind::Locked, miette!(help = help, "another night works in {}: {who}", work.display()))
}

/// Removes what writers that were killed left half done. Under the lock nobody else writes here.
fn clear_leftovers(work: &Path) {
    let mut folders = vec![work.to_owned(), work.join("stages"), work.join("decision"), work.join("report")];
    let runs = work.join("runs");
    folders.extend(entries(&runs).into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
    folders.push(runs);
    for path in folders.iter().flat_map(|folder| entries(folder)) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // A build that was killed before it had its own lock; the others are cleared by the next build.
        let unborn_build =
            name.starts_with(".dataset.new-") && !path.join(LOCK_FILE).exists() && !path.join("old").exists();
        if name.starts_with(".tmp") || name.starts_with(".removed-") || name.contains(".json.tmp") || unborn_build {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                progress::warn(format!(
                    "{} was left by a night that was killed and cannot be removed: {error}",
                    path.display()
                ));
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    // A folder that is not there has nothing to clear.
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it_and_gets_it_afterwards() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = WorkLock::take(folder.path()).expect("free");
        let refusal = WorkLock::take(folder.path()).err().expect("held");
        let words = refusal.to_json().to_string();
        assert_eq!((refusal.kind, refusal.kind.exit_code()), (Kind::Locked, 1));
        for word in [&format!("process {} on {}", std::process::id(), host()), "since 2", "kill -TERM"] {
            assert!(words.contains(word), "'{word}' is not in {words}");
        }
        drop(first);
        WorkLock::take(folder.path()).expect("free again, though the file is still there");
    }

    #[test]
    fn what_killed_nights_left_is_cleared_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let work = folder.path();
        for file in [
            ".tmpAb12Cd/part",
            "stages/.tmpX",
            "stages/train.json",
            "runs/a/.tmpY",
            "runs/a/run.json",
            "runs/.removed-b/run.json",
            ".dataset.new-1/content/x",
            ".dataset.new-2/old/x",
            ".dataset.unfinished/x",
            "report/report.json.tmp12",
            "report/report.json",
        ] {
            let path = work.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("writable");
            fs::write(path, "").expect("writable");
        }
        let lock = WorkLock::take(work).expect("free");
        for (file, stays) in [
            (".tmpAb12Cd", false),
            ("stages/.tmpX", false),
            ("stages/train.json", true),
            ("runs/a/.tmpY", false),
            ("runs/a/run.json", true),
            ("runs/.removed-b", false),
            (".dataset.new-1", false),
            (".dataset.new-2", true),
            (".dataset.unfinished", true),
            ("report/report.json.tmp12", false),
            ("report/report.json", true),
        ] {
            assert_eq!(work.join(file).exists(), stays, "{file}");
        }
        drop(lock);
    }
}
