//! What a night ran on: the program, the machine, the process.

use std::fs;

use serde_json::{Value, json};

use crate::commands::files;
use crate::output;

/// The environment, for `environment.json`; what the system does not say is null.
pub(crate) fn environment() -> Value {
    let program = files::this_program();
    let built = program.as_ref().and_then(|(_, modified)| *modified).and_then(|at| jiff::Timestamp::try_from(at).ok());
    json!({
        "at": output::wall_clock().to_string(),
        "program": {
            "version": env!("CARGO_PKG_VERSION"),
            "path": std::env::current_exe().ok(),
            "bytes": program.map(|(bytes, _)| bytes),
            "built": built.map(|at| at.to_string()),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "s3": cfg!(feature = "s3"),
        },
        "cpu": { "model": field("/proc/cpuinfo", "model name"), "architecture": std::env::consts::ARCH },
        "memory": {
            "total_mib": kib("MemTotal").map(|kib| kib / 1024),
            "available_mib": kib("MemAvailable").map(|kib| kib / 1024),
            "limit_mib": memory_limit_mib(),
        },
        "kernel": {
            "name": std::env::consts::OS,
            "release": line("/proc/sys/kernel/osrelease"),
            "version": line("/proc/sys/kernel/version"),
        },
        // As many as the process may use, which a container's quota may cut.
        "threads": std::thread::available_parallelism().ok().map(std::num::NonZero::get),
        "worker_threads": rayon::current_num_threads(),
        "host": host(),
        "pid": std::process::id(),
    })
}

/// The name of this machine, or of the container.
pub(crate) fn host() -> String {
    line("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "unknown".to_owned())
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The first value of a field in a file of the form `name : value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next()
}

fn kib(name: &str) -> Option<u64> {
    field("/proc/meminfo", name)?.split_whitespace().next()?.parse().ok()
}

/// The container's limit; `None` without one, or where control groups are not mounted.
fn memory_limit_mib() -> Option<u64> {
    line("/sys/fs/cgroup/memory.max")?.parse::<u64>().ok().map(|bytes| bytes / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let environment = environment();
        assert_eq!(environment["program"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(environment["program"]["bytes"].as_u64().is_some_and(|bytes| bytes > 1_000));
        assert!(environment["threads"].as_u64().is_some_and(|threads| threads > 0));
        if cfg!(target_os = "linux") {
            assert!(environment["memory"]["total_mib"].as_u64().is_some_and(|mib| mib > 0));
            assert!(environment["kernel"]["release"].as_str().is_some_and(|release| !release.is_empty()));
        }
    }
}
