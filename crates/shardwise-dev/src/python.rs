//! The Python environment under the target folder: the build tools of LightGBM and what the tests hold results against.
//!
//! It is made at one go and stamped last: an environment without the right stamp is made anew, so that a set-up may be
//! interrupted at any time.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::build_env::Tools;
use crate::failure::Failure;
use crate::workspace::{Workspace, run};

/// What is installed, each to the very version.
const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// The oldest Python that the requirements run on: major, minor.
const OLDEST_PYTHON: (u32, u32) = (3, 11);

/// Where Python is looked for, in this order.
const PYTHONS: &[&str] = &["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// Settings of the developer that would lead pip, or Python, out of the environment.
const MISLEADING: &[&str] = &["PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_PYTHON"];

/// The environment of one target folder.
pub(crate) struct PythonEnv<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
}

impl<'a> PythonEnv<'a> {
    pub(crate) fn of(workspace: &'a Workspace) -> Self {
        Self { workspace, folder: workspace.target.join("python") }
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_ready(&self) -> bool {
        let stamp = fs::read_to_string(self.stamp()).ok();
        is_right_stamp(stamp.as_deref()) && self.tools().is_ok()
    }

    /// Makes the environment, unless another process did meanwhile.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        let _lock = self.lock()?;
        if self.is_ready() {
            return Ok(());
        }
        let pip = self.create(self.host_python()?)?;
        self.install(pip)?;
        self.tools()?;
        fs::write(self.stamp(), REQUIREMENTS).map_err(|error| Failure::file("write", &self.stamp(), &error))
    }

    /// The programs and libraries that the environment brings; fails when one is not there.
    pub(crate) fn tools(&self) -> Result<Tools, Failure> {
        let packages = self.packages()?;
        let tools = Tools {
            python: self.folder.join("bin/python"),
            // The program itself: `bin/cmake` is a script that starts Python first.
            cmake: packages.join("cmake/data/bin/cmake"),
            libclang_folder: packages.join("clang/native"),
        };
        for path in [&tools.python, &tools.cmake, &tools.libclang_folder] {
            if !path.exists() {
                let (path, folder) = (path.display(), self.folder.display());
                return Err(Failure::new(format!("{path} is missing: remove {folder} and run `cargo dev setup`")));
            }
        }
        Ok(tools)
    }

    fn packages(&self) -> Result<PathBuf, Failure> {
        let lib = self.folder.join("lib");
        let entries = fs::read_dir(&lib).map_err(|error| Failure::file("read", &lib, &error))?;
        let versions = entries.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
        versions
            .filter(|packages| packages.is_dir())
            .min()
            .ok_or_else(|| Failure::new(format!("{} holds no site-packages", lib.display())))
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("shardwise-requirements.txt")
    }

    /// Keeps two set-ups apart; a file system without locks goes without.
    fn lock(&self) -> Result<File, Failure> {
        fs::create_dir_all(&self.workspace.target)
            .map_err(|error| Failure::file("make", &self.workspace.target, &error))?;
        let path = self.workspace.target.join("python.lock");
        let file = File::create(&path).map_err(|error| Failure::file("write", &path, &error))?;
        if let Err(error) = file.lock() {
            eprintln!("setup: no lock on {} ({error}): run one set-up at a time", path.display());
        }
        Ok(file)
    }

    /// The first Python on the machine that is new enough.
    fn host_python(&self) -> Result<&'static str, Failure> {
        let is_new_enough = |python: &&&str| self.python_version(python).is_some_and(|it| it >= OLDEST_PYTHON);
        PYTHONS.iter().find(is_new_enough).copied().ok_or_else(|| {
            let (major, minor) = OLDEST_PYTHON;
            Failure::new(format!(
                "no Python {major}.{minor} or newer on the PATH; on Debian and Ubuntu: apt-get install python3 python3-venv"
            ))
        })
    }

    fn python_version(&self, python: &str) -> Option<(u32, u32)> {
        let output = self.program(python).args(["-c", "import sys; print(*sys.version_info[:2])"]).output().ok()?;
        parse_python_version(&String::from_utf8_lossy(&output.stdout))
    }

    /// Makes the empty environment, and says which pip fills it.
    fn create(&self, host: &'static str) -> Result<Pip, Failure> {
        let ways: [(&str, &[&str], Pip); 3] = [
            (host, &["-m", "venv"], Pip::OfTheEnvironment),
            // Debian parts `ensurepip` from Python, but a pip on the machine can fill the environment as well.
            (host, &["-m", "venv", "--without-pip"], Pip::OfTheHost(host)),
            (host, &["-m", "virtualenv"], Pip::OfTheEnvironment),
        ];
        let mut complaints = String::new();
        for (program, arguments, pip) in ways {
            self.remove()?;
            match self.try_to_create(program, arguments).and_then(|()| self.quietly(&mut self.pip(pip, &["--version"])))
            {
                Ok(()) => return Ok(pip),
                Err(complaint) => complaints.push_str(&format!("\n{program} {}: {complaint}", arguments.join(" "))),
            }
        }
        self.remove()?;
        Err(Failure::new(format!(
            "{host} makes no virtual environment; on Debian and Ubuntu: apt-get install python3-venv{complaints}"
        )))
    }

    fn try_to_create(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        self.quietly(self.program(program).args(arguments).arg(&self.folder))
    }

    /// Runs a command whose output matters only when it fails.
    fn quietly(&self, command: &mut Command) -> Result<(), String> {
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    fn install(&self, pip: Pip) -> Result<(), Failure> {
        let list = self.folder.join("requirements.txt");
        fs::write(&list, REQUIREMENTS).map_err(|error| Failure::file("write", &list, &error))?;
        // The list is whole. Left alone, pip would bring what obp asks for, PyTorch among it, and refuse what is newer than obp knows.
        let mut command =
            self.pip(pip, &["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--requirement"]);
        // Stdout belongs to `cargo dev env`.
        command.arg(&list).stdout(std::io::stderr());
        run(&mut command, &format!("pip install --no-deps --only-binary :all: --requirement {}", list.display()))
    }

    fn pip(&self, pip: Pip, arguments: &[&str]) -> Command {
        let inside = self.folder.join("bin/python");
        let mut command = match pip {
            Pip::OfTheEnvironment => self.program(&inside),
            Pip::OfTheHost(host) => self.program(host),
        };
        command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
        if let Pip::OfTheHost(_) = pip {
            command.arg("--python").arg(&inside);
        }
        command.args(arguments);
        command
    }

    /// A command that nothing of the developer's own Python set-up leads astray.
    fn program(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.workspace.command(program.as_ref());
        command.stdin(Stdio::null());
        for name in MISLEADING {
            command.env_remove(name);
        }
        command
    }

    fn remove(&self) -> Result<(), Failure> {
        remove_folder(&self.folder)
    }
}

/// Which pip fills the environment.
#[derive(Debug, Clone, Copy)]
enum Pip {
    OfTheEnvironment,
    OfTheHost(&'static str),
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::file("remove", folder, &error)),
        _ => Ok(()),
    }
}

fn is_right_stamp(stamp: Option<&str>) -> bool {
    stamp == Some(REQUIREMENTS)
}

/// Reads `3 11` as (3, 11).
fn parse_python_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_requirements_are_right() {
        assert!(is_right_stamp(Some(REQUIREMENTS)));
        let newer = format!("{REQUIREMENTS}extra==1.0\n");
        for stamp in [None, Some(""), Some(newer.as_str()), Some(REQUIREMENTS.trim_end())] {
            assert!(!is_right_stamp(stamp), "{stamp:?}");
        }
    }

    #[test]
    fn every_requirement_is_pinned_once() {
        let pins: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).collect();
        let mut names: Vec<&str> = pins.iter().map(|pin| pin.split_once("==").expect(pin).0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), pins.len());
        for tool in ["cmake", "libclang"] {
            assert!(names.contains(&tool), "{tool}");
        }
    }

    #[test]
    fn python_versions_are_compared_by_number() {
        for (text, suffices) in [("3 11\n", true), ("3 14\n", true), ("3 9\n", false), ("2 7\n", false), ("", false)] {
            assert_eq!(parse_python_version(text).is_some_and(|it| it >= OLDEST_PYTHON), suffices, "{text:?}");
        }
    }

    #[test]
    fn a_target_folder_without_environment_is_not_ready() {
        let nowhere = PathBuf::from("/nowhere/at/all");
        let workspace = Workspace { root: nowhere.clone(), target: nowhere };
        let python = PythonEnv::of(&workspace);
        assert!(!python.is_ready());
        assert!(python.tools().is_err());
    }
}
