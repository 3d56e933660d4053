//! What an ONNX model takes and gives, read from its bytes before anything runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use shardwise_features::{FEATURE_COUNT, fingerprint};

use super::proto::{FLOAT, Graph, Model, ValueInfo};
use super::{FINGERPRINT_PROPERTY, OnnxError};

/// Which features a model may have been made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureCheck {
    /// Those of this version: [`FINGERPRINT_PROPERTY`] among its metadata has their fingerprint.
    Fingerprint,
    /// Any of the right number; whoever says so answers for their meaning.
    Any,
}

/// What a model says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxSignature {
    /// Its input, floats `[N, width]`.
    pub input: String,
    /// Values in a row of the input; `None` where the model does not say.
    pub width: Option<usize>,
    /// Its first output, floats.
    pub output: String,
    /// Its metadata properties.
    pub metadata: BTreeMap<String, String>,
}

impl OnnxSignature {
    /// Reads a model's bytes; `path` is for messages.
    ///
    /// # Errors
    /// When the bytes are no ONNX model, or its input is not one table of floats, or its output no floats.
    pub fn read(bytes: &[u8], path: &Path) -> Result<Self, OnnxError> {
        let not_a_model = |problem: String| OnnxError::NotAModel { path: path.to_owned(), problem };
        let model = Model::decode(bytes).map_err(|error| not_a_model(error.to_string()))?;
        let graph = model.graph.ok_or_else(|| not_a_model("it has no graph".to_owned()))?;
        let wrong = |problem: String| OnnxError::Shape { path: path.to_owned(), problem, width: FEATURE_COUNT };
        let (input, width) = input(&graph).map_err(wrong)?;
        let output = graph.output.first().ok_or_else(|| wrong("it has no output".to_owned()))?;
        if element(output) != Some(FLOAT) {
            return Err(wrong(format!("its first output `{}` is not of 32-bit floats", name(output))));
        }
        let metadata = model.metadata_props.into_iter();
        let metadata = metadata.map(|it| (it.key.unwrap_or_default(), it.value.unwrap_or_default())).collect();
        Ok(Self { input, width, output: name(output).to_owned(), metadata })
    }

    /// Whether the model may be asked about feature vectors.
    ///
    /// # Errors
    /// When rows are of another width, or the features are not those that `check` asks for.
    pub fn check(&self, path: &Path, check: FeatureCheck) -> Result<(), OnnxError> {
        let path = path.to_owned();
        if let Some(found) = self.width.filter(|width| *width != FEATURE_COUNT) {
            let problem = format!("its input `{}` has {found} columns", self.input);
            return Err(OnnxError::Shape { path, problem, width: FEATURE_COUNT });
        }
        match self.metadata.get(FINGERPRINT_PROPERTY) {
            Some(found) if found == fingerprint() => Ok(()),
            _ if check == FeatureCheck::Any => Ok(()),
            found => {
                let found = found.cloned().unwrap_or_else(|| format!("(no metadata `{FINGERPRINT_PROPERTY}`)"));
                Err(OnnxError::Fingerprint { path, found, expected: fingerprint() })
            }
        }
    }
}

/// The one input that is no constant, and its width.
fn input(graph: &Graph) -> Result<(String, Option<usize>), String> {
    // Models of IR version 3 list their constants among the inputs.
    let constants: BTreeSet<_> = graph.initializer.iter().map(|tensor| tensor.name.as_deref()).collect();
    let inputs: Vec<_> = graph.input.iter().filter(|input| !constants.contains(&input.name.as_deref())).collect();
    let [input] = inputs[..] else { return Err(format!("it has {} inputs", inputs.len())) };
    if element(input) != Some(FLOAT) {
        return Err(format!("its input `{}` is not of 32-bit floats", name(input)));
    }
    let shape = input.of.as_ref().and_then(|of| of.tensor.as_ref()?.shape.as_ref());
    let width = match shape.map(|shape| shape.dimensions.as_slice()) {
        None => None,
        Some([rows, columns]) => {
            if let Some(fixed) = rows.value {
                return Err(format!("its input `{}` is fixed to {fixed} rows", name(input)));
            }
            columns.value.and_then(|width| usize::try_from(width).ok())
        }
        Some(dimensions) => return Err(format!("its input `{}` has {} dimensions", name(input), dimensions.len())),
    };
    Ok((name(input).to_owned(), width))
}

fn name(value: &ValueInfo) -> &str {
    value.name.as_deref().unwrap_or_default()
}

fn element(value: &ValueInfo) -> Option<i32> {
    value.of.as_ref()?.tensor.as_ref()?.element
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::{Forest, TreeNode};
    use crate::onnx::export_forest;

    fn bytes(width: usize) -> Vec<u8> {
        export_forest(&Forest::new(width, &[vec![TreeNode::Leaf(1.0)]]).expect("a sound tree")).expect("a model")
    }

    #[test]
    fn a_model_on_other_rows_or_of_unknown_features_is_refused() {
        let path = Path::new("it.onnx");
        let narrow = OnnxSignature::read(&bytes(3), path).expect("a signature");
        assert!(matches!(narrow.check(path, FeatureCheck::Any), Err(OnnxError::Shape { .. })));
        let nameless = OnnxSignature::read(&bytes(FEATURE_COUNT), path).expect("a signature");
        assert!(matches!(nameless.check(path, FeatureCheck::Fingerprint), Err(OnnxError::Fingerprint { .. })));
        nameless.check(path, FeatureCheck::Any).expect("allowed explicitly");
    }

    #[test]
    fn bytes_that_are_cut_off_or_something_else_never_panic() {
        let (path, whole) = (Path::new("it.onnx"), bytes(FEATURE_COUNT));
        for length in 0..whole.len() {
            // A cut may fall between two fields: then what is there may still be a model, with less in it.
            let _ = OnnxSignature::read(&whole[..length], path);
        }
        for other in [&b""[..], b"SWFOREST", &[0xff; 100]] {
            assert!(OnnxSignature::read(other, path).is_err());
        }
    }
}
