//! The folder of a run, `WORK/runs/DATE-KEY`: what was asked, on what machine, what happened when, what came out.

use std::cell::{Cell, RefCell};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use miette::miette;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Outcome;
use super::failure::{Kind, NightFailure, NightResult, stop_if_interrupted};
use crate::commands::files;
use crate::output::{self, progress};

pub(crate) const RUNS: &str = "runs";
pub(crate) const RUN_FILE: &str = "run.json";
const LATEST: &str = "latest";
/// What is printed with `--json`, and what is printed without it.
const RESULT_FILE: &str = "result.json";
const SUMMARY_FILE: &str = "summary.txt";

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// At work, or killed.
    Running,
    /// Asked to stop; it can go on.
    Interrupted,
    /// Ended with an error.
    Failed,
    /// Done.
    Finished,
}

/// `run.json`: how far it is, and what must be known of a finished run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) date: String,
    pub(crate) key: String,
    pub(crate) status: Status,
    /// How often it was started.
    pub(crate) attempts: u32,
    /// When it was started last.
    pub(crate) started: String,
    pub(crate) ended: Option<String>,
    pub(crate) exit_code: Option<u8>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) version: Option<String>,
    /// Whom the version was judged against.
    pub(crate) champion: Option<String>,
    pub(crate) error: Option<String>,
}

/// The folder, with the figures of this attempt.
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
    state: RefCell<RunState>,
    figures: RefCell<String>,
    kept: Cell<bool>,
}

impl RunFolder {
    /// The folder of a date and key; nothing is written yet.
    pub(crate) fn of(work: &Path, date: &str, key: &str) -> Self {
        let path = work.join(RUNS).join(format!("{date}-{key}"));
        let state = read_json(&path.join(RUN_FILE)).unwrap_or_else(|| RunState {
            date: date.to_owned(),
            key: key.to_owned(),
            status: Status::Running,
            attempts: 0,
            started: output::wall_clock().to_string(),
            ended: None,
            exit_code: None,
            outcome: None,
            version: None,
            champion: None,
            error: None,
        });
        Self { path, state: RefCell::new(state), figures: RefCell::default(), kept: Cell::new(false) }
    }

    pub(crate) fn state(&self) -> RunState {
        self.state.borrow().clone()
    }

    /// What a finished run printed.
    pub(crate) fn finished(&self) -> Option<(RunState, Value, String)> {
        let state = self.state();
        let result = read_json(&self.path.join(RESULT_FILE))?;
        let summary = fs::read_to_string(self.path.join(SUMMARY_FILE)).ok()?;
        (state.status == Status::Finished).then_some((state, result, summary))
    }

    /// Begins an attempt.
    pub(crate) fn begin(&self, parameters: &Value, environment: &Value) -> NightResult<()> {
        let mut state = self.state();
        state.attempts += 1;
        state.status = Status::Running;
        state.started = output::wall_clock().to_string();
        (state.ended, state.exit_code, state.error) = (None, None, None);
        let attempts = state.attempts;
        self.set_state(state)?;
        self.write_json("parameters.json", parameters)?;
        self.write_json("environment.json", environment)?;
        cut_torn_line(&self.events_file());
        self.point_latest_here();
        self.event("night", if attempts == 1 { "started" } else { "resumed" }, None, None)
    }

    /// Ends an attempt that got to its end.
    pub(crate) fn finish(&self, result: &Value, summary: &str, with: impl FnOnce(&mut RunState)) -> NightResult<()> {
        self.write_json(RESULT_FILE, result)?;
        files::write(&self.path.join(SUMMARY_FILE), summary.as_bytes())?;
        self.event("night", "finished", None, None)?;
        let mut state = self.state();
        with(&mut state);
        state.status = Status::Finished;
        state.ended = Some(output::wall_clock().to_string());
        // Last: what is finished has all its files.
        self.set_state(state)
    }

    /// Ends an attempt that did not get to its end; what cannot be written any more is let go, for the failure matters.
    pub(crate) fn fail(&self, failure: &NightFailure) {
        let mut state = self.state();
        state.status = if failure.kind == Kind::Interrupted { Status::Interrupted } else { Status::Failed };
        state.ended = Some(output::wall_clock().to_string());
        state.exit_code = Some(failure.kind.exit_code());
        state.error = Some(failure.message());
        let noted = self.event("night", failure.kind.name(), None, Some(&failure.message()));
        if let Err(error) = noted.and_then(|()| self.set_state(state)) {
            progress::warn(format!("the run's folder does not say how it ended: {}", error.message()));
        }
    }

    /// Does one stage, with its times and outcome among the events.
    pub(crate) fn stage<T>(&self, name: &'static str, work: impl FnOnce() -> NightResult<T>) -> NightResult<T> {
        stop_if_interrupted()?;
        progress::enter(name);
        self.event(name, "started", None, None)?;
        let started_ns = output::clock_ns();
        let done = work();
        let seconds = (output::clock_ns() - started_ns) as f64 / 1e9;
        let kept = self.kept.take();
        match &done {
            Ok(_) => {
                self.figure(name, "seconds", seconds);
                self.event(name, if kept { "kept" } else { "finished" }, Some(seconds), None)?;
                files::write(&self.path.join("metrics.ndjson"), self.figures.borrow().as_bytes())?;
            }
            Err(failure) => self.event(name, failure.kind.name(), Some(seconds), Some(&failure.message()))?,
        }
        done
    }

    /// Says that the stage at work is kept from before.
    pub(crate) fn keep(&self) {
        self.kept.set(true);
    }

    /// Notes a figure of a stage; it is written when the stage ends.
    pub(crate) fn figure(&self, stage: &str, figure: &str, value: impl Serialize) {
        let at = output::wall_clock().to_string();
        let line = json!({ "at": at, "stage": stage, "figure": figure, "value": value }).to_string();
        let mut figures = self.figures.borrow_mut();
        figures.push_str(&line);
        figures.push('\n');
    }

    /// Notes each number in an object.
    pub(crate) fn figures(&self, stage: &str, object: &Value, prefix: &str) {
        for (name, value) in object.as_object().into_iter().flatten().filter(|(_, value)| value.is_number()) {
            self.figure(stage, &format!("{prefix}{name}"), value);
        }
    }

    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> NightResult<()> {
        Ok(files::write_json(&self.path.join(name), value)?)
    }

    fn events_file(&self) -> PathBuf {
        self.path.join("events.ndjson")
    }

    /// Notes what happened.
    pub(super) fn event(
        &self,
        stage: &str,
        event: &str,
        seconds: Option<f64>,
        message: Option<&str>,
    ) -> NightResult<()> {
        let mut object = json!({ "at": output::wall_clock().to_string(), "stage": stage, "event": event });
        if let Some(seconds) = seconds {
            object["seconds"] = seconds.into();
        }
        if let Some(message) = message {
            object["message"] = message.into();
        }
        let path = self.events_file();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // One write, so that a reader never sees half a line of a process that lives.
        let written = file.and_then(|mut file| file.write_all(format!("{object}\n").as_bytes()));
        written.map_err(|error| miette!("cannot write {}: {error}", path.display()).into())
    }

    fn set_state(&self, state: RunState) -> NightResult<()> {
        self.write_json(RUN_FILE, &state)?;
        *self.state.borrow_mut() = state;
        Ok(())
    }

    /// Whether no other run was started since.
    pub(super) fn is_latest(&self) -> bool {
        let latest = self.path.with_file_name(LATEST);
        fs::read_link(latest).is_ok_and(|name| Some(name.as_os_str()) == self.path.file_name())
    }

    /// `runs/latest` is a convenience: where links are impossible, the night goes on without.
    fn point_latest_here(&self) {
        let (Some(runs), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let new = runs.join(".tmp-latest");
        let linked = match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::os::unix::fs::symlink(name, &new).and_then(|()| fs::rename(&new, runs.join(LATEST))),
        };
        if let Err(error) = linked {
            progress::warn(format!("{}/{LATEST} cannot point to this run: {error}", runs.display()));
        }
    }
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// A process that was killed may have left half a line, which would spoil the next.
fn cut_torn_line(path: &Path) {
    let Ok(bytes) = fs::read(path) else { return };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    if whole < bytes.len() {
        let cut = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(whole as u64));
        if let Err(error) = cut {
            progress::warn(format!("the last line of {} is torn and cannot be cut: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_of_a_killed_process_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("events.ndjson");
        for (there, whole) in [("{}\n{\"at\":", "{}\n"), ("{}\n", "{}\n"), ("{", ""), ("", "")] {
            fs::write(&file, there).expect("writable");
            cut_torn_line(&file);
            assert_eq!(fs::read_to_string(&file).expect("readable"), whole);
        }
    }

    #[test]
    fn a_run_is_finished_only_when_all_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunFolder::of(folder.path(), "2026-01-05", "k");
        run.begin(&json!({}), &json!({})).expect("writable");
        run.stage("build", || {
            run.figures("build", &json!({ "rows": 3, "name": "x" }), "");
            Ok(())
        })
        .expect("done");
        let again = RunFolder::of(folder.path(), "2026-01-05", "k");
        assert!(again.finished().is_none() && again.state().status == Status::Running);
        run.finish(&json!({ "x": 1 }), "all well\n", |state| state.exit_code = Some(0)).expect("writable");
        let (state, result, summary) = RunFolder::of(folder.path(), "2026-01-05", "k").finished().expect("finished");
        assert_eq!((state.attempts, result, summary.as_str()), (1, json!({ "x": 1 }), "all well\n"));
        let latest = fs::read_link(folder.path().join("runs/latest")).expect("a link");
        assert_eq!(latest, Path::new("2026-01-05-k"));
        let metrics = fs::read_to_string(run.path.join("metrics.ndjson")).expect("readable");
        let figures: Vec<String> = metrics
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("JSON")["figure"].as_str().expect("a name").to_owned()
            })
            .collect();
        assert_eq!(figures, ["rows", "seconds"]);
    }
}
