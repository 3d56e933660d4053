//! Forests for rows that share their first values, as the candidates of one decision share what is known of the request.
//!
//! Each leaf of a tree is a bit of one word, in the order of the leaves. A test that fails rules out the leaves behind its
//! first child, whatever the other tests say, so tests may be taken in any order: those on shared values once for all rows,
//! the others for several rows at a time. The lowest bit left is the leaf that a walk would have reached (Lucchese et
//! al., "QuickScorer", SIGIR 2015; several rows at a time: "Exploiting CPU SIMD extensions to speed-up document scoring
//! with tree ensembles", SIGIR 2016). The tests of one reading are sorted: they end at the first that no row fails.

use super::layout::{FlatTree, reading};
use super::{Forest, MAX_FEATURES};

/// Leaves of the largest tree that a word holds.
pub const MAX_LEAVES: usize = u64::BITS as usize;
/// Rows that are answered at a time, when there are no more than these.
const FEW: usize = 8;
/// Rows that are answered at a time otherwise.
const MANY: usize = 16;

/// Several forests that answer the same rows in one pass, bit for bit as [`Forest::predict`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct Factored {
    n_features: usize,
    n_shared: usize,
    /// Where the trees of each forest end.
    ends: Vec<usize>,
    /// All leaves of each tree that some row can reach.
    whole: Vec<u64>,
    /// The values of each tree's leaves.
    leaves: Vec<[f64; MAX_LEAVES]>,
    shared: Tests,
    own: Tests,
}

/// Buffers that a thread keeps between answers.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What each tree's shared tests leave.
    shared: Vec<u64>,
    /// What each column reads of each row, column after column, and the first of its tests that not all rows fail.
    readings: Vec<f32>,
    first_tests: Vec<u32>,
    /// What is left of each tree for each row of a block.
    words: Vec<u64>,
}

/// Tests by what they read.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tests {
    columns: Vec<Column>,
    /// Those of one column side by side, the lowest threshold first.
    tests: Vec<Test>,
}

/// The tests of one of the four [`readings`] of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Column {
    feature: u16,
    reading: u16,
    end: u32,
}

impl Column {
    #[inline(always)]
    fn read(self, row: &[f32]) -> f32 {
        reading(row[usize::from(self.feature)], self.reading)
    }
}

/// A row passes if its reading is at most the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Test {
    threshold: f32,
    tree: u32,
    /// The leaves that a row may still reach when it fails.
    left: u64,
}

impl Factored {
    /// Joins forests whose rows share their first `n_shared` values; `None` when a tree has more than [`MAX_LEAVES`] leaves,
    /// or when the forests read rows of different widths.
    pub fn new(forests: &[&Forest], n_shared: usize) -> Option<Self> {
        let n_features = forests.first()?.n_features;
        if forests.iter().any(|forest| forest.n_features != n_features) {
            return None;
        }
        let mut ends = Vec::with_capacity(forests.len());
        let (mut whole, mut leaves, mut tests) = (Vec::new(), Vec::new(), Vec::new());
        for forest in forests {
            for tree in &forest.trees {
                let number = u32::try_from(whole.len()).ok()?;
                let mut reader = TreeReader { forest, tree, number, values: Vec::new(), whole: 0, tests: &mut tests };
                let all = reader.read(0)?;
                let mut values = [0.0; MAX_LEAVES];
                values[..reader.values.len()].copy_from_slice(&reader.values);
                whole.push(all & !reader.whole);
                leaves.push(values);
            }
            ends.push(whole.len());
        }
        let is_shared = |test: &(u16, Test)| usize::from(test.0 / 4) < n_shared;
        let (shared, own): (Vec<_>, Vec<_>) = tests.into_iter().partition(is_shared);
        let n_shared = n_shared.min(n_features);
        Some(Self { n_features, n_shared, ends, whole, leaves, shared: Tests::new(shared), own: Tests::new(own) })
    }

    /// How many forests it answers for.
    pub fn n_forests(&self) -> usize {
        self.ends.len()
    }

    /// Answers rows of `width` values each, which agree in the shared ones: the first forest's answers, one per row, then
    /// the second's. Allocates nothing once the buffers have grown.
    ///
    /// # Panics
    /// If `width` is below the number of features, or `rows` and `out` do not match.
    pub fn predict_rows(&self, rows: &[f32], width: usize, scratch: &mut Scratch, out: &mut [f64]) {
        assert!(width >= self.n_features, "rows of {width} values, but the forests read {}", self.n_features);
        let n_rows = rows.len() / width;
        assert_eq!(rows.len(), n_rows * width, "rows must be whole");
        assert_eq!(out.len(), n_rows * self.ends.len(), "rows and answers must match");
        if n_rows == 0 {
            return;
        }
        scratch.shared.clear();
        scratch.shared.extend_from_slice(&self.whole);
        self.shared.rule_out(&rows[..width], &mut scratch.shared);
        if n_rows <= FEW {
            self.score_blocks::<FEW>(rows, width, scratch, out);
        } else {
            self.score_blocks::<MANY>(rows, width, scratch, out);
        }
    }

    fn score_blocks<const LANES: usize>(&self, rows: &[f32], width: usize, scratch: &mut Scratch, out: &mut [f64]) {
        let n_rows = rows.len() / width;
        let stride = n_rows.next_multiple_of(LANES);
        self.own.read(rows, width, stride, scratch);
        scratch.words.resize(self.whole.len() * LANES, 0);
        for first in (0..n_rows).step_by(LANES) {
            let taken = LANES.min(n_rows - first);
            let block = Block { factored: self, scratch: &mut *scratch, first, stride };
            block.score::<LANES>(|forest, sums| {
                out[forest * n_rows + first..][..taken].copy_from_slice(&sums[..taken]);
            });
        }
    }
}

/// Rows that are answered at a time.
struct Block<'a> {
    factored: &'a Factored,
    scratch: &'a mut Scratch,
    /// The first of them, and the distance between two columns of their readings.
    first: usize,
    stride: usize,
}

impl Block<'_> {
    /// Gives the sums of each forest.
    fn score<const LANES: usize>(self, answer: impl FnMut(usize, &[f64; LANES])) {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = wide::Wide::detect() {
            return wide.score(self, answer);
        }
        self.score_with(answer, rule_out::<LANES>);
    }

    /// The same with a way to take what each row cannot reach from the words, given tests of one reading of each row.
    #[inline(always)]
    fn score_with<const LANES: usize>(
        self,
        mut answer: impl FnMut(usize, &[f64; LANES]),
        rule_out: impl Fn(&[Test], &[f32; LANES], &mut [[u64; LANES]]),
    ) {
        let Self { factored, scratch, first, stride } = self;
        let (words, _) = scratch.words.as_chunks_mut::<LANES>();
        for (word, shared) in words.iter_mut().zip(&scratch.shared) {
            *word = [*shared; LANES];
        }
        for (index, (column, first_test)) in factored.own.columns.iter().zip(&scratch.first_tests).enumerate() {
            let values = scratch.readings[index * stride + first..].first_chunk().expect("columns are whole blocks");
            rule_out(&factored.own.tests[*first_test as usize..column.end as usize], values, words);
        }
        let mut start = 0;
        for (forest, end) in factored.ends.iter().enumerate() {
            let mut sums = [0.0; LANES];
            for (word, leaves) in words[start..*end].iter().zip(&factored.leaves[start..*end]) {
                for lane in 0..LANES {
                    sums[lane] += leaves[word[lane].trailing_zeros() as usize % MAX_LEAVES];
                }
            }
            answer(forest, &sums);
            start = *end;
        }
    }
}

/// What a threshold must be at least so that all values pass; nothing is when one is NaN.
#[inline(always)]
fn largest<const LANES: usize>(values: &[f32; LANES]) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    for value in values {
        largest = if *value > largest || value.is_nan() { *value } else { largest };
    }
    largest
}

/// Takes from the words what the rows cannot reach by tests that are sorted by their thresholds.
#[inline(always)]
fn rule_out<const LANES: usize>(tests: &[Test], values: &[f32; LANES], words: &mut [[u64; LANES]]) {
    let largest = largest(values);
    for test in tests {
        if test.threshold >= largest {
            break;
        }
        let word = &mut words[test.tree as usize];
        for (word, value) in word.iter_mut().zip(values) {
            *word &= if *value <= test.threshold { u64::MAX } else { test.left };
        }
    }
}

/// Eight rows in one register.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod wide {
    use std::arch::x86_64::{
        __m256, __m512i, _CMP_NLE_UQ, _mm256_cmp_ps_mask, _mm256_loadu_ps, _mm256_set1_ps, _mm512_loadu_epi64,
        _mm512_mask_and_epi64, _mm512_set1_epi64, _mm512_storeu_epi64,
    };

    use super::{Block, Test, largest};

    /// Proof that the processor has the instructions: there is no other way to one than to ask it.
    pub(super) struct Wide(());

    impl Wide {
        pub(super) fn detect() -> Option<Self> {
            let is_there = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vpopcntdq");
            is_there.then_some(Self(()))
        }

        pub(super) fn score<const LANES: usize>(self, block: Block<'_>, answer: impl FnMut(usize, &[f64; LANES])) {
            // SAFETY: all that `score` asks of its caller is that the processor has the three features, which `self` proves.
            unsafe { score(block, answer) }
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn score<const LANES: usize>(block: Block<'_>, answer: impl FnMut(usize, &[f64; LANES])) {
        block.score_with(answer, |tests, values, words| rule_out(tests, values, words));
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn rule_out<const LANES: usize>(tests: &[Test], values: &[f32; LANES], words: &mut [[u64; LANES]]) {
        const { assert!(LANES == 8 || LANES == 16) };
        let largest = largest(values);
        let (eights, _) = values.as_chunks::<8>();
        let eights = [load_values(&eights[0]), load_values(&eights[LANES / 8 - 1])];
        for test in tests {
            if test.threshold >= largest {
                break;
            }
            let threshold = _mm256_set1_ps(test.threshold);
            let left = _mm512_set1_epi64(test.left.cast_signed());
            let (words, _) = words[test.tree as usize].as_chunks_mut::<8>();
            for (words, values) in words.iter_mut().zip(eights) {
                let fails = _mm256_cmp_ps_mask::<_CMP_NLE_UQ>(values, threshold);
                let before = load_words(words);
                store_words(words, _mm512_mask_and_epi64(before, fails, before, left));
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn load_values(values: &[f32; 8]) -> __m256 {
        // SAFETY: reads 32 bytes, all of the array's, at any alignment.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn load_words(words: &[u64; 8]) -> __m512i {
        // SAFETY: reads 64 bytes, all of the array's, at any alignment; every bit pattern is an `i64`.
        unsafe { _mm512_loadu_epi64(words.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn store_words(words: &mut [u64; 8], value: __m512i) {
        // SAFETY: writes 64 bytes, all of the array's, which nobody else may look at, at any alignment.
        unsafe { _mm512_storeu_epi64(words.as_mut_ptr().cast(), value) }
    }
}

impl Tests {
    fn new(mut tests: Vec<(u16, Test)>) -> Self {
        tests.sort_by(|(a_reads, a), (b_reads, b)| a_reads.cmp(b_reads).then(a.threshold.total_cmp(&b.threshold)));
        let mut columns = Vec::new();
        for of_column in tests.chunk_by(|a, b| a.0 == b.0) {
            let reads = of_column[0].0;
            let before = columns.last().map_or(0, |column: &Column| column.end);
            let end = before + of_column.len() as u32;
            columns.push(Column { feature: reads / 4, reading: reads % 4, end });
        }
        Self { columns, tests: tests.into_iter().map(|(_, test)| test).collect() }
    }

    /// Takes from each tree's word the leaves that this row cannot reach.
    fn rule_out(&self, row: &[f32], words: &mut [u64]) {
        let mut start = 0;
        for column in &self.columns {
            let value = column.read(row);
            for test in &self.tests[start..column.end as usize] {
                if value <= test.threshold {
                    break;
                }
                words[test.tree as usize] &= test.left;
            }
            start = column.end as usize;
        }
    }
}

impl Tests {
    /// Reads all columns of all rows, the last of which stands in for those up to `stride`, and takes from the shared words
    /// what no row can reach.
    fn read(&self, rows: &[f32], width: usize, stride: usize, scratch: &mut Scratch) {
        let Scratch { shared, readings, first_tests, .. } = scratch;
        readings.resize(self.columns.len() * stride, 0.0);
        first_tests.clear();
        let mut start = 0;
        for (column, readings) in self.columns.iter().zip(readings.chunks_exact_mut(stride)) {
            let mut least = f32::INFINITY;
            for (row, reading) in rows.chunks_exact(width).zip(readings.iter_mut()) {
                *reading = column.read(row);
                least = least.min(*reading);
            }
            let n_rows = rows.len() / width;
            let last = readings[n_rows - 1];
            readings[n_rows..].fill(last);
            let mut first_test = start;
            for test in &self.tests[start..column.end as usize] {
                if test.threshold >= least {
                    break;
                }
                shared[test.tree as usize] &= test.left;
                first_test += 1;
            }
            first_tests.push(first_test as u32);
            start = column.end as usize;
        }
    }
}

/// Reads one tree: its leaves in order, and each test with the leaves that are left when it fails.
struct TreeReader<'a> {
    forest: &'a Forest,
    tree: &'a FlatTree,
    number: u32,
    values: Vec<f64>,
    /// Leaves that no row reaches, because a test before them lets none pass.
    whole: u64,
    tests: &'a mut Vec<(u16, Test)>,
}

impl TreeReader<'_> {
    /// Returns the leaves at and below a node; `None` when a word cannot hold them.
    fn read(&mut self, place: usize) -> Option<u64> {
        let node = self.forest.nodes[self.tree.range()][place];
        if node.is_leaf(place) {
            let bit = 1_u64.checked_shl(u32::try_from(self.values.len()).ok()?)?;
            self.values.push(self.forest.values[self.tree.start + place]);
            return Some(bit);
        }
        let passed = self.read(node.first_child())?;
        let failed = self.read(node.first_child() + 1)?;
        match node.compared_with() {
            threshold if threshold.is_nan() => self.whole |= passed,
            threshold => self.tests.push((node.reads(), Test { threshold, tree: self.number, left: !passed })),
        }
        Some(passed | failed)
    }
}

const _: () = assert!(MAX_FEATURES * 4 <= 1 << 16, "a feature and its reading fit a test's word");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tests::{Dice, MISSING};

    const N_SHARED: usize = 3;

    /// Rows that agree in their first values.
    fn candidates(dice: &mut Dice, n_rows: usize, width: usize) -> Vec<f32> {
        let mut rows = dice.rows(n_rows, width);
        let shared = rows[..N_SHARED.min(rows.len())].to_vec();
        rows.chunks_exact_mut(width).for_each(|row| row[..N_SHARED].copy_from_slice(&shared));
        rows
    }

    fn some_forests(dice: &mut Dice) -> Vec<Forest> {
        [1, 7, 30].map(|n_trees| Forest::new(5, &dice.trees(n_trees, &MISSING)).expect("sound trees")).into()
    }

    #[test]
    fn answers_are_those_of_the_walk_bit_for_bit() {
        for seed in 0..40 {
            let mut dice = Dice::new(seed);
            let forests = some_forests(&mut dice);
            let factored = Factored::new(&forests.iter().collect::<Vec<_>>(), N_SHARED).expect("small trees");
            let mut scratch = Scratch::default();
            for (n_rows, width) in [(0, 5), (1, 5), (3, 6), (8, 5), (9, 5), (16, 7), (17, 5), (40, 5)] {
                let rows = candidates(&mut dice, n_rows, width);
                let mut answers = vec![f64::NAN; n_rows * forests.len()];
                factored.predict_rows(&rows, width, &mut scratch, &mut answers);
                for (forest, answers) in forests.iter().zip(answers.chunks_exact(n_rows.max(1))) {
                    for (row, answer) in rows.chunks_exact(width).zip(answers) {
                        assert_eq!(answer.to_bits(), forest.predict(row).to_bits(), "{row:?}");
                    }
                }
            }
        }
    }

    /// Answers without wide registers rows that were just answered in some way.
    fn portable<const LANES: usize>(factored: &Factored, scratch: &mut Scratch, n_rows: usize) -> Vec<f64> {
        let mut answers = vec![f64::NAN; n_rows * factored.n_forests()];
        for first in (0..n_rows).step_by(LANES) {
            let taken = LANES.min(n_rows - first);
            let stride = n_rows.next_multiple_of(LANES);
            let block = Block { factored, scratch: &mut *scratch, first, stride };
            let answer = |forest: usize, sums: &[f64; LANES]| {
                answers[forest * n_rows + first..][..taken].copy_from_slice(&sums[..taken]);
            };
            block.score_with(answer, rule_out);
        }
        answers
    }

    /// Where the processor has no wide registers, this holds by itself.
    #[test]
    fn a_processor_without_wide_registers_answers_the_same() {
        // Miri is some hundred times slower.
        let seeds = if cfg!(miri) { 0..1 } else { 0..60 };
        for seed in seeds {
            let mut dice = Dice::new(seed);
            for n_forests in 1..=3 {
                let forests = &some_forests(&mut dice)[..n_forests];
                let n_shared = seed as usize % (N_SHARED + 1);
                let factored = Factored::new(&forests.iter().collect::<Vec<_>>(), n_shared).expect("small trees");
                let mut scratch = Scratch::default();
                for n_rows in (1..=FEW).chain([9, 15, 16, 17, 31, 32, 33, 48]) {
                    let width = 5 + n_rows % 3;
                    let rows = candidates(&mut dice, n_rows, width);
                    let mut answers = vec![f64::NAN; n_rows * n_forests];
                    factored.predict_rows(&rows, width, &mut scratch, &mut answers);
                    let expected = match n_rows {
                        ..=FEW => portable::<FEW>(&factored, &mut scratch, n_rows),
                        _ => portable::<MANY>(&factored, &mut scratch, n_rows),
                    };
                    let bits = |answers: &[f64]| answers.iter().map(|answer| answer.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&answers), bits(&expected), "seed {seed}, {n_forests} forests, {n_rows} rows");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_a_word_is_left_to_the_walk() {
        let mut dice = Dice::new(1);
        let mut forest = |n_splits| Forest::new(5, &[dice.tree(n_splits, &MISSING)]).expect("a sound tree");
        assert!(Factored::new(&[&forest(63)], N_SHARED).is_some());
        assert!(Factored::new(&[&forest(64)], N_SHARED).is_none());
        let narrow = Forest::new(4, &[vec![crate::forest::TreeNode::Leaf(1.0)]]).expect("a sound tree");
        assert!(Factored::new(&[&forest(3), &narrow], N_SHARED).is_none(), "their rows differ");
        assert!(Factored::new(&[], N_SHARED).is_none());
    }

    #[test]
    #[should_panic(expected = "rows and answers must match")]
    fn rows_that_do_not_match_the_answers_are_a_bug() {
        let forests = some_forests(&mut Dice::new(1));
        let factored = Factored::new(&[&forests[0]], N_SHARED).expect("small trees");
        factored.predict_rows(&[0.0; 10], 5, &mut Scratch::default(), &mut [0.0; 3]);
    }
}
