//! The steps of a task: says on stderr what each one is and how long it took, and names the one that failed.

use std::time::{Duration, Instant};

use crate::failure::Failure;

/// A running clock.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a task runner tells how long its steps take")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The steps of one task, each announced under the task's name.
pub(crate) struct Steps {
    task: &'static str,
    since: Stopwatch,
}

impl Steps {
    pub(crate) fn of(task: &'static str) -> Self {
        Self { task, since: Stopwatch::start() }
    }

    /// Runs one step; should it fail, the failure tells how to run it `alone`.
    pub(crate) fn run<T>(
        &self,
        step: &str,
        alone: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let task = self.task;
        eprintln!("{task}: {step} …");
        let stopwatch = Stopwatch::start();
        let done = work().map_err(|failure| failure.in_step(step, alone))?;
        eprintln!("{task}: {step} … {}", seconds(stopwatch.elapsed()));
        Ok(done)
    }

    /// Says how all steps together ended, and how long they took.
    pub(crate) fn finish(&self, outcome: &str) {
        eprintln!("cargo dev {}: {outcome} in {}", self.task, seconds(self.since.elapsed()));
    }
}

/// A duration as developers read it: `12.3 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_tenths_of_a_second() {
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_millis(4)), "0.0 s");
    }

    #[test]
    fn a_step_hands_on_its_result_or_names_itself() {
        let steps = Steps::of("test");
        assert_eq!(steps.run("one", "run one", || Ok(7)), Ok(7));
        let failure = steps.run("two", "run two", || Err::<(), _>(Failure::new("broken"))).expect_err("step two fails");
        assert_eq!(failure, Failure::new("broken").in_step("two", "run two"));
    }
}
