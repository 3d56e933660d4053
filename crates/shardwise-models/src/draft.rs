//! A bundle that is about to be written: what training hands over.
//!
//! Its bytes depend on its content alone, never on the clock, the disk or the order of maps.

use std::collections::BTreeMap;
use std::path::Path;

use shardwise_features::{FEATURES, ServiceTable, fingerprint};
use shardwise_types::Timestamp;

use crate::bundle::{BundleError, ModelBundle};
use crate::confidence_curve::{CALIBRATION_FILE, CalibrationDraft};
use crate::exec_head::ExecHead;
use crate::forest::Forest;
use crate::manifest::{
    DatasetSource, EXEC_FILE, EXEC_TARGET, ExecManifest, FORMAT_VERSION, FileEntry, HeadMetrics, Heads, MANIFEST_FILE,
    Manifest, SideManifest, SideMetrics, TABLE_FILE,
};
use crate::package::Package;
use crate::quantile_head::{QUANTILE_FILES, QuantileDraft};
use crate::side_head::SideHead;
use crate::table_file::table_to_bytes;

/// Everything that goes into a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleDraft {
    /// Name of the model, which versions share.
    pub name: String,
    /// What it was trained on.
    pub dataset: DatasetSource,
    /// Time of the first training row.
    pub trained_from: Timestamp,
    /// Time of the last training row.
    pub trained_to: Timestamp,
    /// Seed of the training.
    pub seed: u64,
    /// Version of the code that trained.
    pub code_version: String,
    /// Learning parameters by name.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// The command that makes this bundle again.
    pub how_to_make_again: String,
    /// The execution head, when it was trained.
    pub exec: Option<ExecDraft>,
    /// The head of cold starts, when it was trained.
    pub cold: Option<SideDraft>,
    /// The head of waits, when it was trained.
    pub wait: Option<SideDraft>,
    /// The head of failures, when it was trained.
    pub error: Option<SideDraft>,
    /// The quantile heads, when they were trained.
    pub quantiles: Option<QuantileDraft>,
    /// What its confidence stands for, when a closed loop told.
    pub calibration: Option<CalibrationDraft>,
    /// What history taught about functions and shards.
    pub service_table: ServiceTable,
}

/// A side head and how well it does.
#[derive(Debug, Clone, PartialEq)]
pub struct SideDraft {
    /// The head.
    pub head: SideHead,
    /// Its losses.
    pub metrics: SideMetrics,
}

/// An execution head and how well it does.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecDraft {
    /// The head.
    pub head: ExecHead,
    /// Its errors beside those of its rivals.
    pub metrics: HeadMetrics,
}

impl BundleDraft {
    /// The smallest whole bundle: the golden history's service table and a single tree that adds nothing to it.
    pub fn example() -> Self {
        let golden = shardwise_features::golden::contexts().remove(1);
        let tree = vec![crate::forest::TreeNode::Leaf(0.0)];
        let forest = Forest::new(FEATURES.len(), &[tree]).expect("a single leaf is a sound tree");
        let offset_feature =
            shardwise_features::position("prior_service_ln_ms").expect("the feature table has the prior");
        let head = ExecHead::new(forest, offset_feature, 2.5, 1.125, 0.5).expect("sound numbers");
        let (rmse, r2) = (0.5, 0.75);
        let metrics = HeadMetrics {
            train_rows: 0,
            test_rows: 0,
            rmse,
            r2,
            table_rmse: rmse,
            elastic_net_rmse: Some(rmse),
            forest_rmse: Some(rmse),
        };
        let at = golden.decided_at;
        Self {
            name: "example".to_owned(),
            dataset: DatasetSource { id: "golden".to_owned(), hash: String::new(), rows: 0, from: at, to: at },
            trained_from: at,
            trained_to: at,
            seed: 0,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            parameters: BTreeMap::new(),
            how_to_make_again: "BundleDraft::example()".to_owned(),
            exec: Some(ExecDraft { head, metrics }),
            cold: None,
            wait: None,
            error: None,
            quantiles: None,
            calibration: None,
            service_table: golden.service_table.unwrap_or_default(),
        }
    }

    /// Makes the bundle that would be loaded after writing, without a disk.
    ///
    /// # Errors
    /// Refuses what [`ModelBundle::load`] would refuse.
    pub fn bundle(&self) -> Result<ModelBundle, BundleError> {
        self.encode().map(|(_, bundle)| bundle)
    }

    /// All bytes of the bundle, to be signed and published.
    ///
    /// # Errors
    /// Refuses what [`ModelBundle::load`] would refuse.
    pub fn package(&self) -> Result<Package, BundleError> {
        self.encode().map(|(package, _)| package)
    }

    /// Writes the bundle into a folder that does not exist yet, and returns its version.
    ///
    /// # Errors
    /// Refuses a draft that could not be loaded again, and says which file could not be written.
    pub fn write(&self, folder: &Path) -> Result<String, BundleError> {
        let package = self.package()?;
        package.write(folder)?;
        Ok(package.version())
    }

    /// Turns the draft into bytes and proves that they can be loaded.
    fn encode(&self) -> Result<(Package, ModelBundle), BundleError> {
        let table = table_to_bytes(&self.service_table)
            .map_err(|source| BundleError::Table { path: TABLE_FILE.into(), source })?;
        let mut files = BTreeMap::from([(TABLE_FILE, table)]);
        if let Some(exec) = &self.exec {
            files.insert(EXEC_FILE, exec.head.forest().to_bytes());
        }
        for side in [&self.cold, &self.wait, &self.error].into_iter().flatten() {
            files.insert(side.head.target().file(), side.head.forest().to_bytes());
        }
        if let Some(quantiles) = &self.quantiles {
            files.extend(QUANTILE_FILES.into_iter().zip(quantiles.head.forests().each_ref().map(Forest::to_bytes)));
        }
        let unserialisable =
            |error: serde_json::Error| BundleError::Manifest { path: MANIFEST_FILE.into(), problem: error.to_string() };
        if let Some(calibration) = &self.calibration {
            files.insert(CALIBRATION_FILE, calibration.file().map_err(unserialisable)?);
        }
        let manifest = self.manifest(&files);
        let mut manifest = serde_json::to_vec_pretty(&manifest).map_err(unserialisable)?;
        manifest.push(b'\n');
        let files = files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
        let package = Package { manifest, files, signatures: BTreeMap::new() };
        let bundle = package.bundle(Path::new(""))?;
        Ok((package, bundle))
    }

    fn manifest(&self, files: &BTreeMap<&'static str, Vec<u8>>) -> Manifest {
        let files = files.iter().map(|(name, content)| ((*name).to_owned(), FileEntry::of(content))).collect();
        Manifest {
            format_version: FORMAT_VERSION,
            name: self.name.clone(),
            feature_fingerprint: fingerprint().to_owned(),
            feature_names: FEATURES.iter().map(|feature| feature.name.to_owned()).collect(),
            dataset: self.dataset.clone(),
            trained_from: self.trained_from,
            trained_to: self.trained_to,
            seed: self.seed,
            code_version: self.code_version.clone(),
            parameters: self.parameters.clone(),
            heads: Heads {
                exec: self.exec.as_ref().map(ExecDraft::manifest),
                cold: self.cold.as_ref().map(SideDraft::manifest),
                wait: self.wait.as_ref().map(SideDraft::manifest),
                error: self.error.as_ref().map(SideDraft::manifest),
                quantiles: self.quantiles.as_ref().map(QuantileDraft::manifest),
            },
            calibration: self.calibration.as_ref().map(CalibrationDraft::manifest),
            files,
            how_to_make_again: self.how_to_make_again.clone(),
        }
    }
}

impl ExecDraft {
    fn manifest(&self) -> ExecManifest {
        ExecManifest {
            file: EXEC_FILE.to_owned(),
            target: EXEC_TARGET.to_owned(),
            offset_feature: self.head.offset_feature_name().to_owned(),
            offset_default_ln_ms: self.head.offset_default_ln_ms(),
            smearing: self.head.smearing(),
            residual_sd: self.head.residual_sd(),
            trees: self.head.forest().n_trees(),
            metrics: self.metrics,
        }
    }
}

impl SideDraft {
    fn manifest(&self) -> SideManifest {
        let target = self.head.target();
        let trees = self.head.forest().n_trees();
        SideManifest { file: target.file().to_owned(), target, trees, metrics: self.metrics }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_draft_gives_the_same_bytes() {
        let [one, other] = [0; 2].map(|_| BundleDraft::example().package().expect("a sound draft"));
        assert_eq!(one, other);
    }

    #[test]
    fn other_content_is_another_version() {
        let draft = BundleDraft::example();
        let other = BundleDraft { seed: 1, ..draft.clone() };
        assert_ne!(draft.package().expect("a draft").version(), other.package().expect("a draft").version());
    }

    #[test]
    fn bundle_without_a_head_serves_its_table() {
        let draft = BundleDraft { exec: None, ..BundleDraft::example() };
        let bundle = draft.bundle().expect("a sound draft");
        assert!(bundle.exec().is_none());
        assert_eq!(*bundle.service_table(), draft.service_table);
    }

    #[test]
    fn figures_that_are_not_numbers_are_not_written() {
        let mut draft = BundleDraft::example();
        draft.exec.as_mut().expect("a head").metrics.rmse = f64::NAN;
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("bundle");
        assert!(matches!(draft.write(&folder), Err(BundleError::Manifest { .. })));
        assert!(!folder.exists());
    }

    #[test]
    fn nothing_is_written_over() {
        let home = tempfile::tempdir().expect("a folder");
        assert!(matches!(BundleDraft::example().write(home.path()), Err(BundleError::Unwritable { .. })));
    }
}
