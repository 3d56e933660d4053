//! Rows as routers meet them: candidates of decisions that share what is known of the request, with values missing.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Share of values that are not known.
const MISSING: f64 = 0.05;

/// Rows of several decisions, one after the other.
pub(super) struct Decisions {
    pub(super) rows: Vec<f32>,
    pub(super) width: usize,
    /// Rows of one decision.
    pub(super) n_rows: usize,
    /// Values, from the first on, that the rows of one decision share.
    pub(super) n_shared: usize,
}

impl Decisions {
    /// The rows of one decision; numbers beyond the last begin again.
    pub(super) fn of(&self, number: usize) -> &[f32] {
        let size = self.n_rows * self.width;
        let first = number % (self.rows.len() / size) * size;
        &self.rows[first..][..size]
    }

    /// Counts the decisions.
    pub(super) fn len(&self) -> usize {
        self.rows.len() / (self.n_rows * self.width)
    }
}

/// Rows in decisions of `n_rows` that share their first `n_shared` values, each drawn for its feature.
pub(super) fn sharing_rows(
    count: usize,
    n_rows: usize,
    width: usize,
    n_shared: usize,
    mut value: impl FnMut(usize) -> f32,
) -> Vec<f32> {
    let mut rows: Vec<f32> = Vec::with_capacity(count * width);
    for row in 0..count {
        for feature in 0..width {
            let above = (row % n_rows > 0 && feature < n_shared).then(|| rows[rows.len() - width]);
            rows.push(above.unwrap_or_else(|| value(feature)));
        }
    }
    rows
}

/// Draws rows and labels.
pub(super) struct Generator {
    rng: StdRng,
    width: usize,
    n_shared: usize,
}

impl Generator {
    pub(super) fn new(width: usize, n_shared: usize, seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), width, n_shared }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn n_shared(&self) -> usize {
        self.n_shared
    }

    pub(super) fn decisions(&mut self, count: usize, n_rows: usize, n_shared: usize) -> Decisions {
        let width = self.width;
        let rows = sharing_rows(count * n_rows, n_rows, width, n_shared, |feature| self.value(feature));
        Decisions { rows, width, n_rows, n_shared }
    }

    /// Four kinds of features take turns: even, skewed, a small count, and one that is mostly zero.
    pub(super) fn value(&mut self, feature: usize) -> f32 {
        if self.rng.random_bool(MISSING) {
            return f32::NAN;
        }
        let even = self.rng.random::<f32>();
        match feature % 4 {
            0 => 2.0 * even - 1.0,
            1 => (4.0 * even).exp(),
            2 => (20.0 * even * even).floor(),
            _ => (even - 0.7).max(0.0),
        }
    }

    /// Sums of bends and products that need deep trees, with noise.
    pub(super) fn labels(&mut self, decisions: &Decisions) -> Vec<f32> {
        let known = |value: f32| if value.is_nan() { 0.3 } else { value.min(20.0) };
        let label = |row: &[f32]| {
            let pairs = row.iter().zip(&row[1..]).enumerate();
            let sum: f32 = pairs.map(|(i, (a, b))| (known(*a) * known(*b) + i as f32).sin()).sum();
            sum + self.rng.random::<f32>()
        };
        decisions.rows.chunks_exact(decisions.width).map(label).collect()
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }
}
