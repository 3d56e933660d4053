//! Neural heads as ONNX models, the standardisation in the graph, and back again.
//!
//! The graph reads feature vectors as they are: what is missing becomes the mean, a second half of the row says what was
//! missing, the columns that the head reads are gathered from both and standardised, and the layers follow.

use std::collections::BTreeMap;

use prost::Message;
use shardwise_features::{FEATURE_COUNT, FEATURES, fingerprint};

use super::export::{EXEC, answers, entry, errors, model};
use super::graph::{INPUT, operator};
use super::proto::{Attribute, FLOAT, Graph, Model, Node, Tensor, ValueInfo};
use super::{FINGERPRINT_PROPERTY, OnnxError, RESIDUAL_SD_PROPERTY, SMEARING_PROPERTY};
use crate::design::{MAX_DEVIATION, Source};
use crate::neural_head::SingleColumn;
use crate::{Dense, NeuralHead, NeuralInputs};

/// The constants from which a head is read back.
const SOURCES: &str = "column_sources";
const MEANS: &str = "column_means";
const SDS: &str = "column_sds";

/// Writes a neural head as an ONNX model from `features`, floats `[N, FEATURE_COUNT]`, to `prediction`, floats `[N, 1]`, the mean
/// of ln warm exec_ms; `more` are metadata, which get `shardwise.` before their names.
pub fn export_neural(head: &NeuralHead, more: &[(&str, String)]) -> Vec<u8> {
    let names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
    let names = serde_json::to_string(&names).expect("a list of names is JSON");
    let mut metadata =
        vec![entry(FINGERPRINT_PROPERTY, fingerprint().to_owned()), entry("shardwise.feature_names", names)];
    metadata.extend(answers(EXEC));
    metadata.extend(errors(head.smearing(), head.residual_sd()));
    metadata.extend(more.iter().map(|(key, value)| entry(&format!("shardwise.{key}"), value.clone())));
    model(graph(head), metadata).encode_to_vec()
}

/// Reads a head from what [`export_neural`] wrote. Its answers differ from those of ONNX Runtime by the rounding of sums in
/// another order.
///
/// # Errors
/// When the bytes are another model, were changed, or are for other features.
pub fn read_neural(bytes: &[u8]) -> Result<NeuralHead, OnnxError> {
    let wrong = |problem: String| OnnxError::NotNeural { problem };
    let model = Model::decode(bytes).map_err(|error| wrong(error.to_string()))?;
    let entries = model.metadata_props.into_iter();
    let metadata: BTreeMap<_, _> =
        entries.map(|it| (it.key.unwrap_or_default(), it.value.unwrap_or_default())).collect();
    if metadata.get(FINGERPRINT_PROPERTY).map(String::as_str) != Some(fingerprint()) {
        return Err(wrong("it was made for other features".to_owned()));
    }
    let number = |key: &str| {
        let number = metadata.get(key).and_then(|value| value.parse().ok());
        number.ok_or_else(|| wrong(format!("its metadata have no number `{key}`")))
    };
    let found = model.graph.ok_or_else(|| wrong("it has no graph".to_owned()))?;
    let constants = Constants(&found);
    let columns = constants.columns().map_err(wrong)?;
    let layers = constants.layers().map_err(wrong)?;
    let offset = constants.offset().map_err(wrong)?;
    let head = NeuralHead::new(
        NeuralInputs { columns },
        layers,
        offset,
        number(SMEARING_PROPERTY)?,
        number(RESIDUAL_SD_PROPERTY)?,
    );
    let head = head.map_err(|error| wrong(error.to_string()))?;
    // The constants say what the head is only if the graph does with them what it always does. Compared as bytes, in which a
    // NaN is itself.
    match graph(&head).encode_to_vec() == found.encode_to_vec() {
        true => Ok(head),
        false => Err(wrong("its graph is another one".to_owned())),
    }
}

fn graph(head: &NeuralHead) -> Graph {
    let mut graph = Graph {
        name: Some("exec".to_owned()),
        input: vec![ValueInfo::rows(INPUT, FEATURE_COUNT)],
        output: vec![ValueInfo::rows(super::graph::OUTPUT, 1)],
        ..Graph::default()
    };
    graph.add_columns(&head.inputs);
    let mut from = "columns".to_owned();
    for (number, layer) in head.layers.iter().enumerate() {
        from = graph.add_layer(number, layer, &from, number + 1 == head.layers.len());
    }
    graph.add_offset(&from, head.offset_feature, f64::from(head.offset_default_ln_ms));
    graph
}

impl Graph {
    /// Standardised columns of the rows, `[N, columns]`.
    fn add_columns(&mut self, inputs: &NeuralInputs) {
        let columns = &inputs.columns;
        let mut fill = vec![0.0; FEATURE_COUNT];
        for column in columns {
            if let Source::Value(feature) = column.source {
                fill[feature] = column.mean;
            }
        }
        let sources = columns.iter().map(|column| place(column.source)).collect();
        let row = |values: Vec<f32>, name| Tensor::rows(name, values.len(), values);
        self.initializer.extend([
            row(fill, "fill"),
            Tensor::indices(SOURCES, sources),
            row(columns.iter().map(|column| column.mean).collect(), MEANS),
            row(columns.iter().map(|column| column.sd).collect(), SDS),
        ]);
        let least = self.constant("least", -MAX_DEVIATION as f32);
        let most = self.constant("most", MAX_DEVIATION as f32);
        let axis = || vec![Attribute::int("axis", 1)];
        self.add("IsNaN", &[INPUT], "value_is_nan");
        self.add("IsInf", &[INPUT], "value_is_infinite");
        self.add("Or", &["value_is_nan", "value_is_infinite"], "value_is_missing");
        self.add("Where", &["value_is_missing", "fill", INPUT], "filled");
        let to = vec![Attribute::int("to", FLOAT.into())];
        self.node.push(Node { attribute: to, ..operator("Cast", &["value_is_missing"], "missing") });
        self.node.push(Node { attribute: axis(), ..operator("Concat", &["filled", "missing"], "both") });
        self.node.push(Node { attribute: axis(), ..operator("Gather", &["both", SOURCES], "gathered") });
        self.add("Sub", &["gathered", MEANS], "centred");
        self.add("Div", &["centred", SDS], "standardised");
        self.add("Clip", &["standardised", least, most], "columns");
    }

    /// Units of a layer, `[N, units]`, and the name under which they are known.
    fn add_layer(&mut self, number: usize, layer: &Dense, from: &str, is_last: bool) -> String {
        let [weights, biases, sums] = ["weights", "biases", "sums"].map(|what| format!("{what}_{number}"));
        let n_units = layer.biases.len();
        self.initializer.push(Tensor::rows(&weights, n_units, layer.weights.clone()));
        self.initializer.push(Tensor::rows(&biases, n_units, layer.biases.clone()));
        self.add("Gemm", &[from, &weights, &biases], &sums);
        if is_last {
            return sums;
        }
        let units = format!("units_{number}");
        self.add("Relu", &[&sums], &units);
        units
    }
}

/// Where a column stands in the values followed by what is missing of them.
fn place(source: Source) -> i64 {
    let place = match source {
        Source::Value(feature) => feature,
        Source::Missing(feature) => FEATURE_COUNT + feature,
    };
    place as i64 // below twice the number of features
}

fn source(place: i64) -> Option<Source> {
    let place = usize::try_from(place).ok().filter(|place| *place < 2 * FEATURE_COUNT)?;
    Some(if place < FEATURE_COUNT { Source::Value(place) } else { Source::Missing(place - FEATURE_COUNT) })
}

/// The constants of a graph.
struct Constants<'a>(&'a Graph);

impl Constants<'_> {
    fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.initializer.iter().find(|tensor| tensor.name.as_deref() == Some(name))
    }

    fn get(&self, name: &str) -> Result<&Tensor, String> {
        self.find(name).ok_or_else(|| format!("it has no constant `{name}`"))
    }

    fn columns(&self) -> Result<Vec<SingleColumn>, String> {
        let [sources, means, sds] = [self.get(SOURCES)?, self.get(MEANS)?, self.get(SDS)?];
        let (sources, means, sds) = (&sources.int64_data, &means.float_data, &sds.float_data);
        if means.len() != sources.len() || sds.len() != sources.len() {
            return Err("its columns have no mean and deviation each".to_owned());
        }
        let column = |((place, mean), sd): ((&i64, &f32), &f32)| {
            let source = source(*place).ok_or_else(|| format!("there is no column {place}"))?;
            Ok(SingleColumn { source, mean: *mean, sd: *sd })
        };
        sources.iter().zip(means).zip(sds).map(column).collect()
    }

    fn layers(&self) -> Result<Vec<Dense>, String> {
        let mut layers = Vec::new();
        while let Some(weights) = self.find(&format!("weights_{}", layers.len())) {
            let biases = self.get(&format!("biases_{}", layers.len()))?.float_data.clone();
            layers.push(Dense { weights: weights.float_data.clone(), biases });
        }
        Ok(layers)
    }

    fn offset(&self) -> Result<(usize, f64), String> {
        let [feature, default] = [self.get("offset_feature")?, self.get("offset_default")?];
        match (&feature.int64_data[..], &default.float_data[..]) {
            ([feature], [default]) => {
                Ok((usize::try_from(*feature).map_err(|error| error.to_string())?, f64::from(*default)))
            }
            _ => Err("its offset is not one feature and one default".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::neural_head::tests::head;
    use crate::onnx::{FeatureCheck, OnnxSignature};

    #[test]
    fn what_was_written_is_read_back_to_the_last_bit() {
        let (head, more) = (head(&[5, 3]), [("seed", "7".to_owned())]);
        let bytes = export_neural(&head, &more);
        assert_eq!(read_neural(&bytes).expect("our own head"), head);
        let signature = OnnxSignature::read(&bytes, Path::new("neural.onnx")).expect("a signature");
        signature.check(Path::new("neural.onnx"), FeatureCheck::Fingerprint).expect("our own features");
        assert_eq!(signature.metadata["shardwise.seed"], "7");
        assert_eq!(signature.metadata["shardwise.target"], EXEC[1]);
    }

    #[test]
    fn what_is_another_graph_or_damaged_is_refused() {
        let bytes = export_neural(&head(&[5]), &[]);
        let changed = |from: &[u8], to: &[u8]| {
            let mut other = bytes.clone();
            // The last: constants come behind the nodes that read them.
            let at = bytes.windows(from.len()).rposition(|window| window == from).expect("it is there");
            other[at..at + from.len()].copy_from_slice(to);
            read_neural(&other).expect_err("a refusal").to_string()
        };
        assert!(changed(b"Relu", b"Tanh").contains("its graph is another one"));
        assert!(changed(b"column_means", b"column_mean_").contains("no constant `column_means`"));
        assert!(changed(b"shardwise.smearing", b"shardwise.smeering").contains("no number"));
        assert!(changed(fingerprint().as_bytes(), &[b'0'; 1].repeat(fingerprint().len())).contains("other features"));
        for end in (0..bytes.len()).step_by(37) {
            assert!(read_neural(&bytes[..end]).is_err(), "cut after {end}");
        }
    }
}
