//! Sound models of many shapes, of which mutants are made.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use shardwise_features::{FEATURE_COUNT, ServiceObservations, ServiceTable, golden};
use shardwise_models::forest::{Forest, Missing, TreeNode};
use shardwise_models::{
    BundleDraft, BundleError, CalibrationDraft, CalibrationMetrics, ConfidenceCurve, ExecDraft, ExecHead, ModelBundle,
    QuantileDraft, QuantileFigures, QuantileHead, QuantileMetrics, SideDraft, SideHead, SideMetrics, SideTarget,
    table_to_bytes,
};
use shardwise_types::Response;

use crate::Mutant;
use crate::fuzz::{
    checks,
    container::{self, MANIFEST},
};

/// A manifest and the files beside it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Bundle {
    pub(crate) manifest: Vec<u8>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    pub(crate) fn load(&self) -> Result<ModelBundle, BundleError> {
        ModelBundle::from_memory(&self.manifest, &self.files)
    }
}

/// The models.
pub(crate) struct Originals {
    forests: Vec<Vec<u8>>,
    tables: Vec<Vec<u8>>,
    bundles: Vec<Bundle>,
    versions: HashSet<String>,
}

impl Originals {
    pub(crate) fn new() -> Self {
        let rng = &mut StdRng::seed_from_u64(1);
        let shapes = [(1, 1, 1), (1, 3, 9), (5, 1, 31), (5, 12, 12), (40, 3, 70), (300, 2, 20)];
        let forests = shapes.map(|(n_features, n_trees, leaves)| forest(rng, n_features, n_trees, leaves).to_bytes());
        let tables = [ServiceTable::default(), table(3), table(40)];
        let example = BundleDraft::example();
        let drafts = [
            example.clone(),
            BundleDraft { exec: None, service_table: tables[1].clone(), ..example.clone() },
            with_heads(rng, &example),
            with_all(rng, &example),
        ];
        let bundles: Vec<Bundle> = drafts.iter().map(written).collect();
        let versions = bundles.iter().map(|bundle| bundle.load().expect("a sound bundle").version().to_owned());
        Self {
            versions: versions.collect(),
            forests: forests.into(),
            tables: tables.map(|table| table_to_bytes(&table).expect("a finite table")).into(),
            bundles,
        }
    }

    /// Or else whatever is refused says nothing.
    pub(crate) fn assert_sound(&self) {
        assert!(self.forests.iter().all(|forest| checks::forest(forest) == Ok(true)));
        assert!(self.tables.iter().all(|table| checks::service_table(table) == Ok(true)));
        assert!(self.bundles.iter().all(|bundle| checks::bundle(&bundle.manifest, &bundle.files) == Ok(true)));
    }

    pub(crate) fn write_corpus(&self, folder: &Path) {
        let bundles = self.bundles.iter().map(|bundle| container::pack(&bundle.manifest, &bundle.files)).collect();
        for (target, contents) in
            [("forest", self.forests.clone()), ("service_table", self.tables.clone()), ("bundle", bundles)]
        {
            let folder = folder.join(target);
            fs::create_dir_all(&folder).expect("a folder");
            for (number, content) in contents.iter().enumerate() {
                fs::write(folder.join(number.to_string()), content).expect("a file");
            }
        }
    }

    pub(crate) fn forest(&self, rng: &mut StdRng) -> &Vec<u8> {
        self.forests.choose(rng).expect("some")
    }

    pub(crate) fn table(&self, rng: &mut StdRng) -> &Vec<u8> {
        self.tables.choose(rng).expect("some")
    }

    pub(crate) fn bundle(&self, rng: &mut StdRng) -> &Bundle {
        self.bundles.choose(rng).expect("some")
    }

    /// Whether the change came to nothing.
    pub(crate) fn contain(&self, mutant: &Mutant) -> bool {
        match mutant {
            Mutant::Forest(bytes) => self.forests.contains(bytes),
            Mutant::ServiceTable(bytes) => self.tables.contains(bytes),
            Mutant::Bundle(bundle) => self.bundles.contains(bundle),
        }
    }

    /// What an accepted mutant shares with an original though it must not: its version or its digest.
    pub(crate) fn mistaken_for(&self, mutant: &Mutant) -> Option<String> {
        let Mutant::Bundle(bundle) = mutant else { return None };
        let loaded = bundle.load().ok()?;
        self.versions.contains(loaded.version()).then(|| format!("it is called {}", loaded.version()))
    }
}

fn written(draft: &BundleDraft) -> Bundle {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("bundle");
    draft.write(&folder).expect("a sound draft");
    let entries = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a file"));
    let mut files: BTreeMap<String, Vec<u8>> = entries
        .map(|entry| (entry.file_name().into_string().expect("a plain name"), fs::read(entry.path()).expect("a file")))
        .collect();
    Bundle { manifest: files.remove(MANIFEST).expect("a manifest"), files }
}

fn with_heads(rng: &mut StdRng, example: &BundleDraft) -> BundleDraft {
    let exec = example.exec.as_ref().expect("the example has an execution head");
    let (place, default) = (exec.head.offset_feature(), exec.head.offset_default_ln_ms());
    let head = ExecHead::new(forest(rng, FEATURE_COUNT, 6, 15), place, default, 1.02, 0.3).expect("sound numbers");
    let mut side = |target| {
        let metrics = SideMetrics { train_rows: 0, test_rows: 0, loss: 0.1, formula_loss: 0.1, bias: 1.0 };
        let head = SideHead::new(target, forest(rng, FEATURE_COUNT, 4, 9)).expect("a forest on the features");
        Some(SideDraft { head, metrics })
    };
    BundleDraft {
        cold: side(SideTarget::Cold),
        wait: side(SideTarget::Wait),
        exec: Some(ExecDraft { head, metrics: exec.metrics }),
        service_table: table(40),
        ..example.clone()
    }
}

/// With everything that a bundle may hold.
fn with_all(rng: &mut StdRng, example: &BundleDraft) -> BundleDraft {
    let metrics = SideMetrics { train_rows: 0, test_rows: 0, loss: 0.1, formula_loss: 0.1, bias: 1.0 };
    let head = SideHead::new(SideTarget::Error, forest(rng, FEATURE_COUNT, 4, 9)).expect("a forest on the features");
    let error = Some(SideDraft { head, metrics });
    let quantiles = [(); 2].map(|()| forest(rng, FEATURE_COUNT, 3, 7));
    let figures = |coverage| QuantileFigures { loss: 0.1, formula_loss: 0.1, coverage };
    let metrics = QuantileMetrics { train_rows: 0, test_rows: 0, q50: figures(0.5), q90: figures(0.9) };
    let head = QuantileHead::new(quantiles).expect("forests on the features");
    let quantiles = Some(QuantileDraft { head, metrics });
    let curve = ConfidenceCurve::new(vec![[0.1, 0.2], [0.5, 0.5], [0.9, 0.7]]).expect("sound knots");
    let metrics = CalibrationMetrics { train_choices: 9, test_choices: 9, error: 0.02, built_in_error: 0.05 };
    let calibration = Some(CalibrationDraft { curve, metrics });
    BundleDraft { error, quantiles, calibration, ..with_heads(rng, example) }
}

fn forest(rng: &mut StdRng, n_features: usize, n_trees: usize, leaves: usize) -> Forest {
    let trees: Vec<_> = (0..n_trees).map(|_| tree(rng, n_features, leaves)).collect();
    Forest::new(n_features, &trees).expect("sound trees")
}

/// Splits a leaf drawn at random until there are enough.
fn tree(rng: &mut StdRng, n_features: usize, leaves: usize) -> Vec<TreeNode> {
    let mut nodes = vec![TreeNode::Leaf(0.5)];
    let mut open = vec![0];
    while open.len() < leaves {
        let parent: usize = open.swap_remove(rng.random_range(0..open.len()));
        let left = u32::try_from(nodes.len()).expect("a small tree");
        let kinds = [Missing::NanLeft, Missing::NanRight, Missing::ZeroLeft, Missing::ZeroRight];
        nodes[parent] = TreeNode::Split {
            feature: u32::try_from(rng.random_range(0..n_features)).expect("few features"),
            threshold: rng.random_range(-3.0..3.0),
            missing: *kinds.choose(rng).expect("some"),
            left,
            right: left + 1,
        };
        open.extend([nodes.len(), nodes.len() + 1]);
        nodes.extend([(); 2].map(|()| TreeNode::Leaf(rng.random_range(-1.0..1.0))));
    }
    nodes
}

fn table(functions: usize) -> ServiceTable {
    let golden = golden::contexts().remove(1);
    let mut observations = ServiceObservations::default();
    for i in 0..functions * 6 {
        let mut request = golden.request.clone();
        request.function = format!("function-{}", i % functions).as_str().into();
        let exec_ms = 3.0 + (i % 17) as f32;
        let cold = i % 5 == 0;
        let response = Response { error: None, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 0, cold };
        observations.observe(&request, &golden.fleet.shards[i % 3].id, &response);
    }
    observations.fit()
}
