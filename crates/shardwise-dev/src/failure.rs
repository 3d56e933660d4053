//! What ends a task early: a text for the developer and the exit code of the process.

use std::fmt;
use std::path::Path;
use std::process::ExitStatus;

/// A task that could not be done, with the reason and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    exit_code: u8,
}

impl Failure {
    /// A step that went wrong: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 1 }
    }

    /// A command line that makes no sense: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 2 }
    }

    /// A file or folder that could not be read, written or removed.
    pub(crate) fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// A command that ended badly; its own exit code is passed on.
    pub(crate) fn command(command: &str, status: ExitStatus) -> Self {
        let exit_code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        Self { message: format!("`{command}` failed ({status})"), exit_code }
    }

    /// The same failure, told as that of a named step.
    pub(crate) fn in_step(self, step: &str, alone: &str) -> Self {
        let message = format!("step `{step}` failed: {}\nto run that step alone: {alone}", self.message);
        Self { message, ..self }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_keeps_the_exit_code_and_says_how_to_run_it_alone() {
        let failure = Failure::usage("no such thing").in_step("clippy", "cargo clippy");
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(failure.to_string(), "step `clippy` failed: no such thing\nto run that step alone: cargo clippy");
    }
}
