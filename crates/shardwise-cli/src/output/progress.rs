//! How far long work is, on standard error: a bar, lines, JSON, or nothing but warnings.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use shardwise_evaluation::visible;

use super::{now, wall_clock};

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A bar on a terminal, plain lines elsewhere.
    Auto,
    /// A bar that is drawn over itself.
    Bar,
    /// A line when work begins, every ten seconds, and when it ends.
    Plain,
    /// One JSON object per line: stage, done, total, message, at.
    Json,
    /// Nothing but warnings and errors.
    None,
}

static MODE: OnceLock<Progress> = OnceLock::new();
/// The name under which JSON tells what is said, where a command has stages.
static STAGE: Mutex<Option<&'static str>> = Mutex::new(None);

/// Lines are printed this often while work goes on.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// JSON is for programs, which bear more.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Chooses how progress is shown; the first choice stands.
pub(crate) fn show(progress: Progress) {
    let resolved = match progress {
        Progress::Auto if std::io::stderr().is_terminal() => Progress::Bar,
        Progress::Auto => Progress::Plain,
        chosen => chosen,
    };
    // It is chosen once, in main; whoever comes later is a mistake without consequences.
    let _ = MODE.set(resolved);
}

fn mode() -> Progress {
    *MODE.get().unwrap_or(&Progress::Plain)
}

/// Names the stage for all that is said from now on.
pub(crate) fn enter(stage: &'static str) {
    *STAGE.lock().expect("no holder panics") = Some(stage);
}

fn stage_or(name: &str) -> String {
    STAGE.lock().expect("no holder panics").map_or_else(|| name.to_owned(), str::to_owned)
}

/// A line on standard error. That it is closed is no reason to give up the work, so the error is let go.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The same for people, who must not be misled by what names hold.
fn say(text: &str) {
    line(&visible(text));
}

fn json_line(stage: &str, counted: (Option<u64>, Option<u64>), message: &str, level: Option<&str>) {
    line(&progress_json(stage, counted, message, &wall_clock().to_string(), level).to_string());
}

fn progress_json(
    stage: &str,
    (done, total): (Option<u64>, Option<u64>),
    message: &str,
    at: &str,
    level: Option<&str>,
) -> Value {
    let mut object = json!({ "stage": stage, "done": done, "total": total, "message": message, "at": at });
    if let Some(level) = level {
        object["level"] = level.into();
    }
    object
}

/// Says something by the way.
pub(crate) fn note(text: impl Display) {
    match mode() {
        Progress::None => {}
        Progress::Json => json_line(&stage_or("note"), (None, None), &text.to_string(), None),
        _ => say(&format!("note: {text}")),
    }
}

/// Says that a stage has nothing to do.
pub(crate) fn kept(stage: &str, why: &str) {
    match mode() {
        Progress::None => {}
        Progress::Json => json_line(stage, (None, None), why, None),
        _ => say(&format!("{stage}: {why}")),
    }
}

/// Says what somebody should look at; never silent.
pub(crate) fn warn(text: impl Display) {
    match mode() {
        Progress::Json => json_line(&stage_or("warning"), (None, None), &text.to_string(), Some("warning")),
        _ => say(&format!("warning: {text}")),
    }
}

/// Says why the command failed; never silent.
pub(crate) fn error(report: &miette::Report) {
    match mode() {
        Progress::Json => json_line(&stage_or("error"), (None, None), &in_one_line(report), Some("error")),
        _ => line(&format!("{report:?}")),
    }
}

/// An error with its causes, as one sentence.
pub(crate) fn in_one_line(report: &miette::Report) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in report.chain().map(ToString::to_string) {
        // Transparent errors say the same as what they carry.
        if parts.last() != Some(&cause) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

/// A piece of long work: it says what it does, how far it is, and how long it took.
pub(crate) struct Stage {
    bar: ProgressBar,
    name: String,
    started: Instant,
    last_line: Instant,
    counted: (Option<u64>, Option<u64>),
}

impl Stage {
    /// Starts the work and says so.
    pub(crate) fn start(name: impl Display) -> Self {
        let name = name.to_string();
        let bar = if mode() == Progress::Bar { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(style("{spinner} {prefix} {wide_msg}"));
        bar.set_prefix(name.clone());
        match mode() {
            Progress::None => {}
            Progress::Json => json_line(&stage_or(&name), (Some(0), None), &name, None),
            _ => say(&format!("{name} …")),
        }
        let now = now();
        Self { bar, name, started: now, last_line: now, counted: (None, None) }
    }

    /// Says how far it is.
    pub(crate) fn at(&mut self, message: impl Display) {
        match mode() {
            Progress::None => {}
            Progress::Bar | Progress::Auto => {
                self.bar.set_message(message.to_string());
                self.bar.tick();
            }
            Progress::Plain if self.is_due(LINE_EVERY) => say(&format!("  {}: {message}", self.name)),
            Progress::Json if self.is_due(JSON_EVERY) => {
                json_line(&stage_or(&self.name), self.counted, &message.to_string(), None);
            }
            Progress::Plain | Progress::Json => {}
        }
    }

    /// Says how far it is, of how much.
    pub(crate) fn count(&mut self, done: u64, total: u64, message: impl Display) {
        if self.counted.1 != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style("{bar:24} {pos}/{len} {prefix} {wide_msg}"));
        }
        self.counted = (Some(done), Some(total));
        self.bar.set_position(done);
        self.at(message);
    }

    fn is_due(&mut self, every: Duration) -> bool {
        let is_due = now() - self.last_line > every;
        if is_due {
            self.last_line = now();
        }
        is_due
    }

    /// Ends the work with its result.
    pub(crate) fn done(self, result: impl Display) {
        self.bar.finish_and_clear();
        let seconds = (now() - self.started).as_secs_f64();
        match mode() {
            Progress::None => {}
            Progress::Json => {
                let total = self.counted.1.or(Some(1));
                json_line(&stage_or(&self.name), (total, total), &format!("{result} ({seconds:.1} s)"), None);
            }
            _ => say(&format!("{}: {result} ({seconds:.1} s)", self.name)),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_has_the_documented_fields() {
        let said = progress_json("build", (Some(1), Some(3)), "day 2", "2026-01-05T00:00:00Z", None);
        let expected =
            json!({ "stage": "build", "done": 1, "total": 3, "message": "day 2", "at": "2026-01-05T00:00:00Z" });
        assert_eq!(said, expected);
        assert_eq!(progress_json("build", (None, None), "", "", Some("warning"))["level"], "warning");
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_nothing_twice() {
        let report =
            miette::miette!("the disk is full").wrap_err("cannot write the card").wrap_err("cannot write the card");
        assert_eq!(in_one_line(&report), "cannot write the card: the disk is full");
    }
}
