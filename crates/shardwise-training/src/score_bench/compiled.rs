//! The model as C code by treelite and tl2cgen, compiled into a library of its own.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs;
use std::path::Path;
use std::process::Command;

use libloading::{Library, Symbol};
use tempfile::TempDir;

use super::engines::Way;

/// Writes the code; several files, so that the compiler does not choke on one.
const GENERATE: &str = r#"
import sys, treelite, tl2cgen
model = treelite.frontend.load_lightgbm_model(sys.argv[1])
tl2cgen.generate_c_code(model, sys.argv[2], params={"parallel_comp": 8})
"#;

/// A value as the code reads it.
#[derive(Clone, Copy)]
#[repr(C)]
union Entry {
    /// -1 for a value that is missing. No number made from a 32-bit float looks like that: its low bits are 0.
    missing: c_int,
    value: f64,
}

type Predict = unsafe extern "C" fn(*mut Entry, c_int, *mut f64);

/// The loaded code.
pub(super) struct Compiled {
    predict: Predict,
    row: Vec<Entry>,
    /// Holds the code.
    _library: Library,
    _folder: TempDir,
}

impl Compiled {
    /// Writes, compiles and loads the code of a model's text, with the packages of this Python.
    pub(super) fn build(python: &Path, text: &str, width: usize) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let [model, code, library] = ["model.txt", "code", "model.so"].map(|name| folder.path().join(name));
        fs::write(&model, text).map_err(|error| error.to_string())?;
        run(Command::new(python).args(["-c", GENERATE]).args([&model, &code]))?;
        let sources = fs::read_dir(&code).map_err(|error| error.to_string())?;
        let sources = sources.filter_map(|entry| Some(entry.ok()?.path()));
        let sources = sources.filter(|path| path.extension().is_some_and(|extension| extension == "c"));
        run(Command::new("gcc")
            .args(["-O3", "-std=c99", "-fPIC", "-shared", "-lm", "-o"])
            .arg(&library)
            .args(sources))?;
        // SAFETY: the library was just compiled from code without initialisers.
        let library = unsafe { Library::new(&library) }.map_err(|error| error.to_string())?;
        // SAFETY: the types are those of the header that tl2cgen 1.0 writes for a LightGBM model.
        let (predict, n_features) = unsafe {
            let n_features: Symbol<'_, unsafe extern "C" fn() -> i32> = get(&library, "get_num_feature")?;
            let predict: Symbol<'_, Predict> = get(&library, "predict")?;
            (*predict, n_features())
        };
        if usize::try_from(n_features) != Ok(width) {
            return Err(format!("its code reads {n_features} features, not {width}"));
        }
        Ok(Self { predict, row: vec![Entry { value: 0.0 }; width], _library: library, _folder: folder })
    }
}

impl Way for Compiled {
    fn score(&mut self, rows: &[f32], _: usize, out: &mut [f64]) -> Result<(), String> {
        for (row, out) in rows.chunks_exact(self.row.len()).zip(out) {
            for (entry, value) in self.row.iter_mut().zip(row) {
                *entry = if value.is_nan() { Entry { missing: -1 } } else { Entry { value: f64::from(*value) } };
            }
            *out = 0.0;
            // SAFETY: the row has as many entries as the code says that it reads, and it adds to one output.
            unsafe { (self.predict)(self.row.as_mut_ptr(), 1, out) };
        }
        Ok(())
    }
}

/// # Safety
/// The symbol must be of the type `T`.
unsafe fn get<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>, String> {
    // SAFETY: as the caller promises.
    unsafe { library.get(name.as_bytes()) }.map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed: {}", said.trim().lines().last().unwrap_or("it did not say why")))
}
