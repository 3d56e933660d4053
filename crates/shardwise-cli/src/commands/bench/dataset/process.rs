//! One engine as a process of its own: how long it took, and the most memory and disk that it held.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use miette::IntoDiagnostic;
use serde::Serialize;
use serde_json::Value;

use crate::output;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(20);
/// Clock ticks a second in `/proc`, the same on all Linux systems that there are (`getconf CLK_TCK`).
const TICKS_PER_S: f64 = 100.0;

/// What a process took.
#[derive(Serialize, Default)]
pub(super) struct Measured {
    /// From start to end.
    pub(super) wall_s: f64,
    /// In user and system, of all threads. This and the next are as last seen, at most 20 ms before the end; 0 where there is no `/proc`.
    pub(super) cpu_s: f64,
    /// Most resident memory.
    pub(super) peak_mib: u64,
    /// Most that lay in the folder for what does not fit into memory.
    pub(super) spilled_mib: u64,
}

/// Runs a process to its end; returns what it took and the JSON of its last line, or why it failed.
pub(super) fn measure(command: &mut Command, scratch: &Path) -> miette::Result<Result<(Measured, Value), String>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let began = output::clock_ns();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ok(Err(format!("{program} does not start: {error}"))),
    };
    let before = bytes_in(scratch);
    let mut measured = Measured::default();
    // Both pipes are read while it runs, so that it never waits for us.
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = loop {
        measured.look_at(&child, scratch, before);
        if let Some(status) = child.try_wait().into_diagnostic()? {
            break status;
        }
        if output::is_interrupted() {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            child.wait().into_diagnostic()?;
            output::stop_if_interrupted()?;
        }
        thread::sleep(EVERY);
    };
    measured.wall_s = (output::clock_ns() - began) as f64 / 1e9;
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().expect("reading a pipe does not panic"));
    if !status.success() {
        return Ok(Err(failure(status, &stderr, measured.peak_mib)));
    }
    let last = stdout.lines().last().unwrap_or_default();
    Ok(serde_json::from_str(last).map(|said| (measured, said)).map_err(|_| format!("{program} said '{last}'")))
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What cannot be read is missing in the message.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn failure(status: ExitStatus, stderr: &str, peak_mib: u64) -> String {
    let said = stderr.trim().lines().last().unwrap_or("it did not say why");
    // Killed without a word is what the system does to whoever takes all memory.
    format!("{status}, at {peak_mib} MiB: {said}")
}

impl Measured {
    fn look_at(&mut self, child: &Child, scratch: &Path, before: u64) {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default();
        if let Some(kib) = read("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok())
        {
            self.peak_mib = self.peak_mib.max(kib / 1024);
        }
        if let Some(ticks) = cpu_ticks(&read("stat")) {
            self.cpu_s = self.cpu_s.max(ticks as f64 / TICKS_PER_S);
        }
        self.spilled_mib = self.spilled_mib.max(bytes_in(scratch).saturating_sub(before) >> 20);
    }
}

/// User and system time; the name of the program, in brackets, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

/// Bytes of the files that lie directly in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_took_and_said_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo '{\"rows\":3}'; sleep 0.1"]);
        let (measured, said) = measure(&mut command, folder.path()).unwrap().unwrap();
        assert_eq!(said["rows"], 3);
        assert!(measured.wall_s >= 0.1 && measured.spilled_mib == 0);
    }

    #[test]
    fn who_fails_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let reason =
            |script: &str| measure(Command::new("sh").args(["-c", script]), folder.path()).unwrap().err().unwrap();
        assert!(reason("echo no such column >&2; exit 7").ends_with("no such column"));
        assert!(reason("kill -9 $$").contains("signal: 9"));
        assert!(reason("echo hello").contains("hello"));
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        assert_eq!(cpu_ticks("7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0"), Some(42));
        assert_eq!(cpu_ticks(""), None);
    }
}
