//! The variables that a build of LightGBM needs: where cmake, libclang and the compiler's own headers are.
//!
//! What the machine has is used where it suffices, the Python environment brings the rest. The outcome depends on
//! nothing else, so that it is the same each time.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::python::PythonEnv;
use crate::workspace::Variables;

/// The oldest cmake that LightGBM accepts: major, minor.
const OLDEST_CMAKE: (u32, u32) = (3, 28);

/// Programs that the build calls, and the variable that names another one.
const COMPILERS: &[(&str, &str)] = &[("cc", "CC"), ("c++", "CXX"), ("make", "CMAKE_GENERATOR")];

/// What the machine itself brings.
#[derive(Debug, Clone, Default)]
struct Machine {
    has_cmake: bool,
    has_libclang: bool,
    has_clang_arguments: bool,
    compiler_headers: Option<PathBuf>,
}

impl Machine {
    fn look() -> Self {
        Self {
            has_cmake: cmake_version().is_some_and(|version| version >= OLDEST_CMAKE),
            has_libclang: env::var_os("LIBCLANG_PATH").is_some_and(|path| Path::new(&path).exists()),
            has_clang_arguments: env::var_os("BINDGEN_EXTRA_CLANG_ARGS").is_some(),
            compiler_headers: compiler_headers(),
        }
    }
}

/// Fails when there is no C++ compiler or no make.
pub(crate) fn require_compilers() -> Result<(), Failure> {
    let missing: Vec<&str> = COMPILERS
        .iter()
        .filter(|(program, variable)| env::var_os(variable).is_none() && !is_on_path(program))
        .map(|(program, _)| *program)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "no {} on the PATH: LightGBM is built from source; on Debian and Ubuntu: apt-get install build-essential",
        missing.join(", ")
    )))
}

/// The variables for every build and test, as this machine needs them.
pub(crate) fn variables(python: &PythonEnv) -> Result<Variables, Failure> {
    Ok(compose(&Machine::look(), &python.tools()?))
}

/// What the Python environment brings.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) python: PathBuf,
    pub(crate) cmake: PathBuf,
    pub(crate) libclang_folder: PathBuf,
}

fn compose(machine: &Machine, tools: &Tools) -> Variables {
    let mut variables = Variables::from([("SHARDWISE_PYTHON", tools.python.clone().into())]);
    if !machine.has_cmake {
        variables.insert("CMAKE", tools.cmake.clone().into());
    }
    if !machine.has_libclang {
        variables.insert("LIBCLANG_PATH", tools.libclang_folder.clone().into());
    }
    // The libclang of the Python environment comes without headers such as stddef.h, the compiler has them.
    if let (false, Some(headers)) = (machine.has_clang_arguments, &machine.compiler_headers) {
        let mut argument = OsString::from("-I");
        argument.push(headers);
        variables.insert("BINDGEN_EXTRA_CLANG_ARGS", argument);
    }
    variables
}

fn cmake_version() -> Option<(u32, u32)> {
    let program = env::var_os("CMAKE").unwrap_or_else(|| "cmake".into());
    let output = Command::new(program).arg("--version").output().ok().filter(|output| output.status.success())?;
    parse_cmake_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `cmake version 3.28.1` as (3, 28).
fn parse_cmake_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.lines().next()?.strip_prefix("cmake version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The folder of the compiler's own headers; none when it does not tell.
fn compiler_headers() -> Option<PathBuf> {
    let compiler = if is_on_path("gcc") { "gcc" } else { "cc" };
    let output = Command::new(compiler).arg("-print-file-name=include").output().ok()?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    (folder.is_absolute() && folder.is_dir()).then_some(folder)
}

pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Tools { python: "/env/python".into(), cmake: "/env/cmake".into(), libclang_folder: "/env/clang".into() }
    }

    fn names(machine: &Machine) -> Vec<&'static str> {
        compose(machine, &tools()).into_keys().collect()
    }

    #[test]
    fn a_bare_machine_gets_everything_from_the_environment() {
        let machine = Machine { compiler_headers: Some("/gcc/include".into()), ..Machine::default() };
        let expected = Variables::from([
            ("BINDGEN_EXTRA_CLANG_ARGS", "-I/gcc/include".into()),
            ("CMAKE", "/env/cmake".into()),
            ("LIBCLANG_PATH", "/env/clang".into()),
            ("SHARDWISE_PYTHON", "/env/python".into()),
        ]);
        assert_eq!(compose(&machine, &tools()), expected);
    }

    #[test]
    fn what_the_machine_has_is_left_alone() {
        let machine = Machine { has_cmake: true, has_libclang: true, has_clang_arguments: true, ..Machine::default() };
        assert_eq!(names(&machine), ["SHARDWISE_PYTHON"]);
        let machine = Machine { has_cmake: true, ..Machine::default() };
        assert_eq!(names(&machine), ["LIBCLANG_PATH", "SHARDWISE_PYTHON"]);
    }

    #[test]
    fn cmake_versions_are_compared_by_number() {
        for (text, suffices) in [
            ("cmake version 3.28.0\n\nCMake suite", true),
            ("cmake version 4.4.4", true),
            ("cmake version 3.100.1", true),
            ("cmake version 3.9.2", false),
            ("cmake version 3.25.1", false),
            ("something else", false),
        ] {
            assert_eq!(parse_cmake_version(text).is_some_and(|version| version >= OLDEST_CMAKE), suffices, "{text}");
        }
    }
}
