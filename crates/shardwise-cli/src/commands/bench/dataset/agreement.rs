//! Whether another engine's rows say what the dataset says, on a sample of decisions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use miette::{IntoDiagnostic, miette};
use serde::{Deserialize, Serialize};

const COMPARE: &str = include_str!("compare.py");
/// Share of the rows that may differ in a column: what is known at the very instant of a decision comes before or after it by
/// its sequence, which no as-of join knows.
const MAX_DIFFERING: f64 = 1e-4;

/// What was compared.
#[derive(Serialize, Deserialize)]
pub(super) struct Agreement {
    #[serde(default)]
    engine: String,
    /// Rows of the other engine, all of them.
    other_rows: u64,
    /// Rows of the sample, on both sides.
    pub(super) rows: u64,
    /// Rows of the sample that only one side has.
    unmatched: u64,
    /// Columns that both compute.
    pub(super) columns: usize,
    /// Columns of the dataset that the other leaves out.
    left_out: Vec<String>,
    /// Columns that the other computes in a simpler way, which are not compared.
    simpler: Vec<String>,
    /// Rows that differ, of columns where any does.
    differing: BTreeMap<String, u64>,
}

/// Compares by DuckDB, which reads both.
pub(super) fn agreement(engine: &str, python: &Path, dataset: &Path, other: &Path) -> miette::Result<Agreement> {
    let output = Command::new(python).args(["-c", COMPARE]).args([dataset, other]).output().into_diagnostic()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(miette!(
            help = "DuckDB compares; `cargo dev setup` installs it",
            "cannot compare with {engine}: {said}"
        ));
    }
    let found: Agreement = serde_json::from_slice(&output.stdout).into_diagnostic()?;
    Ok(Agreement { engine: engine.to_owned(), ..found })
}

impl Agreement {
    /// Fails when the two are not of the same thing, so that their times must not be compared.
    pub(super) fn hold(&self, dataset_rows: u64) -> miette::Result<()> {
        let engine = &self.engine;
        if self.other_rows != dataset_rows || self.unmatched > 0 {
            let Self { other_rows, unmatched, .. } = self;
            return Err(miette!(
                "{engine} has {other_rows} rows, the dataset {dataset_rows}, {unmatched} of the sample on one side only"
            ));
        }
        if self.rows == 0 {
            return Err(miette!("no row of {engine} was compared"));
        }
        match self.differing.iter().find(|(_, n)| **n as f64 > MAX_DIFFERING * self.rows as f64) {
            Some((column, n)) => Err(miette!("{n} of {} rows differ from {engine} in {column}", self.rows)),
            None => Ok(()),
        }
    }

    pub(super) fn print(&self) {
        let Self { engine, rows, columns, left_out, simpler, differing, .. } = self;
        println!("{engine}: {columns} columns compared on {rows} rows, different: {differing:?}");
        println!("  leaves out {}", left_out.join(", "));
        println!("  computes in a simpler way {}", simpler.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(differing: u64) -> Agreement {
        Agreement {
            engine: "other".to_owned(),
            other_rows: 70_000,
            rows: 50_000,
            unmatched: 0,
            columns: 1,
            left_out: Vec::new(),
            simpler: Vec::new(),
            differing: [("report_cpu".to_owned(), differing)].into(),
        }
    }

    #[test]
    fn ties_may_differ_and_more_may_not() {
        assert!(found(5).hold(70_000).is_ok());
        assert!(found(6).hold(70_000).unwrap_err().to_string().contains("report_cpu"));
    }

    #[test]
    fn other_rows_are_another_thing() {
        assert!(found(0).hold(70_001).is_err());
        assert!(Agreement { unmatched: 1, ..found(0) }.hold(70_000).is_err());
        assert!(Agreement { rows: 0, ..found(0) }.hold(70_000).is_err());
    }
}
