//! Models run by ONNX Runtime, a library that is looked for and loaded when it is first asked for.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use shardwise_features::FEATURE_COUNT;

use super::{FeatureCheck, OnnxError, OnnxSignature};
use crate::ExecModel;
use crate::durable::read_bounded;

/// The variable that names the library.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// The variable that names the Python of the development environment.
const PYTHON_VARIABLE: &str = "SHARDWISE_PYTHON";

/// Largest model that is read.
const MAX_BYTES: u64 = 1 << 28;

/// The loaded library; a process can load one.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// ONNX Runtime, loaded.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
}

impl OnnxRuntime {
    /// Looks for the library, without touching it: where [`LIBRARY_VARIABLE`] says, then in the Python environment of
    /// `cargo dev setup`, which `SHARDWISE_PYTHON` names or which lies in the target folder of this program.
    ///
    /// # Errors
    /// Lists where it was looked for.
    pub fn find() -> Result<PathBuf, OnnxError> {
        if let Some(named) = env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
            // What the user names is taken or refused, never passed over.
            return Ok(named.into());
        }
        let python = env::var_os(PYTHON_VARIABLE).map(PathBuf::from);
        let named = python.as_deref().and_then(|python| python.ancestors().nth(2)).map(Path::to_owned);
        let program = env::current_exe().ok();
        let beside = program.iter().flat_map(|program| program.ancestors().skip(2).take(2));
        let folders: Vec<PathBuf> = named.into_iter().chain(beside.map(|target| target.join("python"))).collect();
        folders.iter().find_map(|folder| library_in(folder)).ok_or_else(|| {
            let folders = folders.iter().map(|folder| folder.display().to_string());
            OnnxError::NoLibrary { looked_for: [LIBRARY_VARIABLE.to_owned()].into_iter().chain(folders).collect() }
        })
    }

    /// Loads the library at a path.
    ///
    /// # Errors
    /// When it is not there, is something else or too old, or when another one is loaded already.
    pub fn load(path: &Path) -> Result<Self, OnnxError> {
        let wrong = |problem: String| OnnxError::Library { path: path.to_owned(), problem };
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, environment)) = &*loaded {
            let (first, environment) = (first.clone(), environment.clone());
            return match first == path {
                true => Ok(Self { environment }),
                false => Err(OnnxError::SecondLibrary { loaded: first, wanted: path.to_owned() }),
            };
        }
        // Whatever is no file, such as a pipe, would keep the loader waiting; a bare name would be searched elsewhere.
        if !path.metadata().map_err(|error| wrong(error.to_string()))?.is_file() {
            return Err(wrong("it is not a file".to_owned()));
        }
        let absolute = path.canonicalize().map_err(|error| wrong(error.to_string()))?;
        let builder = ort::init_from(absolute).map_err(|error| wrong(error.to_string()))?;
        let environment = builder.with_name("shardwise").with_telemetry(false).build();
        let environment = environment.map_err(|error| wrong(error.to_string()))?;
        *loaded = Some((path.to_owned(), environment.clone()));
        Ok(Self { environment })
    }
}

/// The library of the Python package in a virtual environment.
fn library_in(environment: &Path) -> Option<PathBuf> {
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().filter_map(|it| Some(it.ok()?.path()));
    let capi = entries(environment.join("lib")).map(|python| python.join("site-packages/onnxruntime/capi"));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libonnxruntime.so") || name.starts_with("libonnxruntime.dylib")
    };
    capi.flat_map(entries).filter(is_library).min()
}

/// An ONNX model that answers rows, on one thread.
pub struct OnnxModel {
    session: Session,
    signature: OnnxSignature,
    width: usize,
}

impl OnnxModel {
    /// Opens a model on feature vectors.
    ///
    /// # Errors
    /// When the file is no model that takes feature vectors, `check` refuses its features, or ONNX Runtime refuses it.
    pub fn open(runtime: &OnnxRuntime, path: &Path, check: FeatureCheck) -> Result<Self, OnnxError> {
        let bytes = read_model(path)?;
        let signature = OnnxSignature::read(&bytes, path)?;
        signature.check(path, check)?;
        Self::with_session(runtime, &bytes, signature, FEATURE_COUNT, &path.display().to_string())
    }

    /// Opens a model in memory on rows of any width, such as [`super::export_forest`] writes it.
    ///
    /// # Errors
    /// When the bytes are no model that takes rows, or ONNX Runtime refuses it.
    pub fn from_bytes(runtime: &OnnxRuntime, bytes: &[u8]) -> Result<Self, OnnxError> {
        let signature = OnnxSignature::read(bytes, Path::new("(memory)"))?;
        let width = signature.width.unwrap_or(FEATURE_COUNT);
        Self::with_session(runtime, bytes, signature, width, "the model")
    }

    fn with_session(
        runtime: &OnnxRuntime,
        bytes: &[u8],
        signature: OnnxSignature,
        width: usize,
        what: &str,
    ) -> Result<Self, OnnxError> {
        let build = || -> ort::Result<Session> {
            let builder = Session::builder(&runtime.environment)?.with_intra_threads(1)?.with_inter_threads(1)?;
            builder.with_optimization_level(GraphOptimizationLevel::All)?.commit_from_memory(bytes)
        };
        let session = build().map_err(|error| refused(what, &error))?;
        Ok(Self { session, signature, width })
    }

    /// What the model says of itself.
    pub fn signature(&self) -> &OnnxSignature {
        &self.signature
    }

    /// Predicts `out.len()` rows, one after the other in `rows`.
    ///
    /// # Errors
    /// When rows and answers do not match, ONNX Runtime refuses them, or an answer is not finite.
    pub fn predict_rows(&mut self, rows: &[f32], out: &mut [f64]) -> Result<(), OnnxError> {
        let (n_rows, width) = (out.len(), self.width);
        if Some(rows.len()) != n_rows.checked_mul(width) {
            return Err(OnnxError::Rows { values: rows.len(), rows: n_rows, width });
        }
        if n_rows == 0 {
            return Ok(());
        }
        let refused = |error: &ort::Error| refused("these rows", error);
        let input = TensorRef::from_array_view(([n_rows, width], rows)).map_err(|error| refused(&error))?;
        let answers = self.session.run(ort::inputs![input]).map_err(|error| refused(&error))?;
        let (_, answers) = answers[0].try_extract_tensor::<f32>().map_err(|error| refused(&error))?;
        if answers.len() != n_rows {
            return Err(OnnxError::Answers { expected: n_rows, found: answers.len() });
        }
        for (row, (out, answer)) in out.iter_mut().zip(answers).enumerate() {
            *out = f64::from(*answer);
            if !out.is_finite() {
                return Err(OnnxError::NotFinite { row, value: *out });
            }
        }
        Ok(())
    }
}

/// One decision at a time asks it; what it cannot answer is not a number, upon which the router decides without a model.
impl ExecModel for Mutex<OnnxModel> {
    fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]) {
        let mut model = self.lock().unwrap_or_else(PoisonError::into_inner);
        if model.predict_rows(rows, out).is_err() {
            out.fill(f64::NAN);
        }
    }
}

/// Reads the file of a model.
fn read_model(path: &Path) -> Result<Vec<u8>, OnnxError> {
    let unreadable = |source| OnnxError::Unreadable { path: path.to_owned(), source };
    // A pipe would keep whoever opens it waiting.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(OnnxError::NotAModel { path: path.to_owned(), problem: "it is not a file".to_owned() });
    }
    let bytes = read_bounded(path, MAX_BYTES).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(OnnxError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
    }
    Ok(bytes)
}

fn refused(what: &str, error: &ort::Error) -> OnnxError {
    OnnxError::Refused { what: what.to_owned(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_library_is_a_typed_error() {
        let home = tempfile::tempdir().expect("a folder");
        let text = home.path().join("libonnxruntime.so");
        fs::write(&text, "not a library").expect("a file");
        for path in [text.as_path(), home.path(), Path::new("/no/such/library.so")] {
            assert!(matches!(OnnxRuntime::load(path), Err(OnnxError::Library { .. })), "{}", path.display());
        }
    }

    #[test]
    fn the_library_of_a_python_environment_is_found() {
        let home = tempfile::tempdir().expect("a folder");
        assert_eq!(library_in(home.path()), None);
        let capi = home.path().join("lib/python3.11/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).expect("folders");
        let library = capi.join("libonnxruntime.so.1.32.0");
        for path in [&library, &capi.join("libonnxruntime_providers_shared.so")] {
            fs::write(path, "").expect("a file");
        }
        assert_eq!(library_in(home.path()), Some(library));
    }
}
