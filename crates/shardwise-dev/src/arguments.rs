//! The command line of `cargo dev`: one table of tasks, which the parser and the help page are read off.

use crate::failure::Failure;

/// What `cargo dev` is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Setup,
    Env,
    Demo,
    Check,
    Test,
    Features { check: bool },
    Neural,
    Help,
}

struct Entry {
    usage: &'static str,
    task: Task,
    summary: &'static str,
}

const TASKS: &[Entry] = &[
    Entry {
        usage: "setup",
        task: Task::Setup,
        summary: "make the Python environment that brings the build tools (once)",
    },
    Entry {
        usage: "demo",
        task: Task::Demo,
        summary: "build shardwise and run one nightly cycle on the sample history",
    },
    Entry {
        usage: "check",
        task: Task::Check,
        summary: "formatting, clippy, and whether generated pages are up to date",
    },
    Entry { usage: "test", task: Task::Test, summary: "set-up, check, build, all tests, documentation" },
    Entry {
        usage: "features",
        task: Task::Features { check: false },
        summary: "write the feature page, crates/shardwise-features/FEATURES.md",
    },
    Entry {
        usage: "features --check",
        task: Task::Features { check: true },
        summary: "fail when the feature page is out of date",
    },
    Entry {
        usage: "neural",
        task: Task::Neural,
        summary: "build and test what trains the neural head, and compare it with trees on a simulated history",
    },
    Entry { usage: "env", task: Task::Env, summary: "print what plain cargo needs: eval \"$(cargo dev env)\"" },
    Entry { usage: "help", task: Task::Help, summary: "print this page" },
];

/// Reads the arguments after `cargo dev`; none at all asks for help.
pub(crate) fn parse(arguments: &[String]) -> Result<Task, Failure> {
    let asked = arguments.join(" ");
    match asked.as_str() {
        "" | "-h" | "--help" => Ok(Task::Help),
        _ => TASKS.iter().find(|entry| entry.usage == asked).map(|entry| entry.task).ok_or_else(|| unknown(&asked)),
    }
}

/// The page that `cargo dev help` prints.
pub(crate) fn help_page() -> String {
    format!("The task runner of shardwise.\n\nUsage: cargo dev <task>\n\n{}", task_list())
}

fn unknown(asked: &str) -> Failure {
    Failure::usage(format!("there is no task `{asked}`; the tasks are:\n\n{}", task_list()))
}

fn task_list() -> String {
    TASKS.iter().map(|entry| format!("  {:<18}{}\n", entry.usage, entry.summary)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, Failure> {
        let arguments: Vec<String> = line.split_whitespace().map(String::from).collect();
        parse(&arguments)
    }

    #[test]
    fn every_listed_task_is_understood_and_in_the_help() {
        for entry in TASKS {
            assert_eq!(parsed(entry.usage), Ok(entry.task));
            assert!(help_page().contains(entry.usage));
        }
    }

    #[test]
    fn no_argument_asks_for_help() {
        for line in ["", "-h", "--help", "help"] {
            assert_eq!(parsed(line), Ok(Task::Help), "{line:?}");
        }
    }

    #[test]
    fn unknown_tasks_and_leftover_arguments_are_refused_with_the_list() {
        for line in ["tests", "setup now", "features --chek", "--check"] {
            let failure = parsed(line).expect_err(line);
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(&format!("`{line}`")), "{failure}");
            assert!(failure.to_string().contains("features --check"), "{failure}");
        }
    }
}
