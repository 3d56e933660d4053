//! Small files: read with an error that names them, written whole or not at all.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use miette::miette;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a text file that the user named.
pub(crate) fn read(path: &Path) -> miette::Result<String> {
    std::fs::read_to_string(path).map_err(|error| miette!("cannot read {}: {error}", path.display()))
}

/// Writes an object as JSON for people to read; a reader sees the old file or the new one.
/// The command line as it was given, so that a page says how to make it again.
pub(crate) fn this_command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("shardwise {}", arguments.join(" "))
}

/// Reads a file of JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> miette::Result<T> {
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|error| miette!("{} is not what it should be: {error}", path.display()))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> miette::Result<()> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| miette!("cannot write {}: {error}", path.display()))?;
    write(path, format!("{text}\n").as_bytes())
}

/// Writes a file, and its folder where there is none; a reader sees the old file or the new one.
pub(crate) fn write(path: &Path, content: &[u8]) -> miette::Result<()> {
    let wrong = |error: &dyn std::fmt::Display| miette!("cannot write {}: {error}", path.display());
    let folder = path.parent().ok_or_else(|| wrong(&"it has no folder"))?;
    std::fs::create_dir_all(folder).map_err(|error| wrong(&error))?;
    let mut builder = tempfile::Builder::new();
    // Others may read it, as far as the umask lets them; the temporary file alone would be its owner's.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(|error| wrong(&error))?;
    file.write_all(content).map_err(|error| wrong(&error))?;
    // After a power cut the new name must not stand for an empty file.
    file.as_file().sync_all().map_err(|error| wrong(&error))?;
    file.persist(path).map_err(|error| wrong(&error))?;
    Ok(())
}

/// Writes a file that must not be there yet, whole or not at all.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> miette::Result<()> {
    let wrong = |error: &dyn std::fmt::Display| miette!("cannot write {}: {error}", path.display());
    // `out.tar` has an empty parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| wrong(&error))?;
    file.write_all(content).map_err(|error| wrong(&error))?;
    file.persist_noclobber(path).map_err(|error| wrong(&error.error))?;
    Ok(())
}

/// Size and date of this program, by which results of another build are told apart; `None` where the system does not say.
pub(crate) fn this_program() -> Option<(u64, Option<SystemTime>)> {
    let program = std::env::current_exe().and_then(std::fs::metadata).ok()?;
    Some((program.len(), program.modified().ok()))
}
