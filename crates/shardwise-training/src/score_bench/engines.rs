//! The engines: each takes the same rows of 32-bit floats and gives sums of leaves.

use std::path::Path;

use shardwise_models::forest::{Factored, Forest, Scratch};
use shardwise_models::onnx::{OnnxModel, OnnxRuntime, export_forest};

use super::compiled::Compiled;
use super::data::Decisions;
use super::lightgbm::RawScores;
use super::{LeftOut, Model};

/// One way to answer rows, the first `n_shared` values of which are the same in all of them.
pub(super) trait Way {
    /// Says what went wrong.
    fn score(&mut self, rows: &[f32], n_shared: usize, out: &mut [f64]) -> Result<(), String>;
}

/// An engine with its ways to answer, of which the fastest counts.
pub(super) struct Contender {
    pub(super) engine: &'static str,
    pub(super) ways: Vec<(&'static str, Box<dyn Way>)>,
}

impl Contender {
    /// The largest difference of any of its ways from what is expected.
    pub(super) fn max_difference(&mut self, decisions: &Decisions, expected: &[f64]) -> Result<f64, String> {
        let mut largest = 0.0_f64;
        let mut out = vec![0.0; decisions.n_rows];
        for (_, way) in &mut self.ways {
            for (decision, expected) in (0..decisions.len()).zip(expected.chunks_exact(decisions.n_rows)) {
                way.score(decisions.of(decision), decisions.n_shared, &mut out)?;
                largest = out.iter().zip(expected).fold(largest, |largest, (a, b)| largest.max((a - b).abs()));
            }
        }
        Ok(largest)
    }
}

/// All engines that are there.
pub(super) fn contenders(model: &Model, python: Option<&Path>) -> (Vec<Contender>, Vec<LeftOut>) {
    let width = model.generator.width();
    let lightgbm = || {
        let [matrix, single] = [RawScores::new(&model.text, width)?, RawScores::new(&model.text, width)?];
        Ok(vec![("matrix", Box::new(Matrix(matrix)) as Box<dyn Way>), ("row by row", Box::new(Single(single)))])
    };
    let onnxruntime = || {
        let onnx = open_onnx(&model.forest).map_err(|error| error.to_string())?;
        Ok(vec![("TreeEnsembleRegressor", Box::new(Onnx(onnx)) as Box<dyn Way>)])
    };
    let tl2cgen = || {
        let python = python.ok_or("no Python: run `eval \"$(cargo dev env)\"` first, which sets SHARDWISE_PYTHON")?;
        let compiled = Compiled::build(python, &model.text, width)?;
        Ok(vec![("gcc -O3", Box::new(compiled) as Box<dyn Way>)])
    };
    let all: [(&'static str, Result<_, String>); 4] = [
        ("shardwise", Ok(own_ways(&model.forest, model.generator.n_shared()))),
        ("lightgbm", lightgbm()),
        ("onnxruntime", onnxruntime()),
        ("tl2cgen", tl2cgen()),
    ];
    let (mut contenders, mut left_out) = (Vec::new(), Vec::new());
    for (engine, ways) in all {
        match ways {
            Ok(ways) => contenders.push(Contender { engine, ways }),
            Err(reason) => left_out.push(LeftOut { engine, reason }),
        }
    }
    (contenders, left_out)
}

fn own_ways(forest: &Forest, n_shared: usize) -> Vec<(&'static str, Box<dyn Way>)> {
    let width = forest.n_features();
    let mut ways: Vec<(&'static str, Box<dyn Way>)> = vec![("walk", Box::new(Walk { forest: forest.clone(), width }))];
    // Trees of more leaves than a word has bits can only be walked.
    if let (Some(sharing), Some(alone)) = (Factored::new(&[forest], n_shared), Factored::new(&[forest], 0)) {
        ways.push(("factored", Box::new(ByFeature { sharing, alone, width, scratch: Scratch::default() })));
    }
    ways
}

pub(super) fn open_onnx(forest: &Forest) -> Result<OnnxModel, shardwise_models::onnx::OnnxError> {
    let runtime = OnnxRuntime::load(&OnnxRuntime::find()?)?;
    OnnxModel::from_bytes(&runtime, &export_forest(forest)?)
}

struct Walk {
    forest: Forest,
    width: usize,
}

impl Way for Walk {
    fn score(&mut self, rows: &[f32], _: usize, out: &mut [f64]) -> Result<(), String> {
        self.forest.predict_rows(rows, self.width, out);
        Ok(())
    }
}

struct ByFeature {
    sharing: Factored,
    alone: Factored,
    width: usize,
    scratch: Scratch,
}

impl Way for ByFeature {
    fn score(&mut self, rows: &[f32], n_shared: usize, out: &mut [f64]) -> Result<(), String> {
        let factored = if n_shared > 0 { &self.sharing } else { &self.alone };
        factored.predict_rows(rows, self.width, &mut self.scratch, out);
        Ok(())
    }
}

struct Matrix(RawScores);

impl Way for Matrix {
    fn score(&mut self, rows: &[f32], _: usize, out: &mut [f64]) -> Result<(), String> {
        self.0.matrix(rows, out)
    }
}

struct Single(RawScores);

impl Way for Single {
    fn score(&mut self, rows: &[f32], _: usize, out: &mut [f64]) -> Result<(), String> {
        self.0.row_by_row(rows, out)
    }
}

struct Onnx(OnnxModel);

impl Way for Onnx {
    fn score(&mut self, rows: &[f32], _: usize, out: &mut [f64]) -> Result<(), String> {
        self.0.predict_rows(rows, out).map_err(|error| error.to_string())
    }
}
