//! Forests for rows that share their first values, as the candidates of one decision share what is known of the request.
//!
//! Each leaf of a tree is a bit of one word, in the order of the leaves. A test that fails rules out the leaves behind its
//! first child, whatever the other tests say, so tests may be taken in any order; the lowest bit left is the leaf that a walk
//! would have reached (Lucchese et al., "QuickScorer", SIGIR 2015; several rows at a time: "Exploiting CPU SIMD extensions to
//! speed-up document scoring with tree ensembles", SIGIR 2016). Here the tests on shared values are taken once for all rows,
//! several tests at a time; the others for several rows at a time. Both go tree by tree, with the words in registers.
//! Measured and left out: sorting the tests of one reading, to end at the first that passes (what early ends save is lost to
//! loads and stores of words), and dropping the tests that shared ones have made moot (four in five stay).

use std::array;
use std::ops::Range;

use super::layout::{FlatTree, reading};
use super::{Forest, MAX_FEATURES};

/// Leaves of the largest tree that a word holds.
pub const MAX_LEAVES: usize = u64::BITS as usize;
/// Rows that are answered at a time, when there are no more than these.
const FEW: usize = 8;
/// Rows that are answered at a time otherwise.
const MANY: usize = 16;
/// The own tests of a tree are filled up to a multiple of this with some that change nothing, so that loops end when expected.
const STEP: usize = 8;
/// Shared tests that are taken at a time.
const GROUP: usize = 16;
/// Shared columns that a group of tests chooses from: two registers of 512 bits.
const BANK: usize = 32;
/// Own columns that a test may name: it cannot name one beyond.
const MAX_OWN_COLUMNS: usize = 1 << u8::BITS;

/// Several forests that answer the same rows in one pass, bit for bit as [`Forest::predict`] does.
#[derive(Debug, Clone, PartialEq)]
pub struct Factored {
    n_features: usize,
    /// Where the trees of each forest end.
    ends: Vec<usize>,
    /// All leaves of each tree that some row can reach.
    whole: Vec<u64>,
    /// The values of all leaves, those of one tree side by side, then [`MAX_LEAVES`] that stand for none.
    leaves: Vec<f64>,
    /// Where each tree's leaves begin.
    first_leaves: Vec<u32>,
    shared: SharedTests,
    own: OwnTests,
}

/// Buffers that a thread keeps between answers.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What each shared column reads.
    shared_readings: Vec<[f32; BANK]>,
    /// What each tree's shared tests leave.
    shared: Vec<u64>,
    /// What each own column reads of each row of a block.
    readings: Vec<f32>,
    /// The leaf of each tree that each row of a block reaches.
    reached: Vec<u8>,
}

/// One of the four readings of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Column {
    feature: u16,
    reading: u16,
}

impl Column {
    #[inline(always)]
    fn read(self, row: &[f32]) -> f32 {
        reading(row[usize::from(self.feature)], self.reading)
    }
}

/// What own columns read of the rows of a block; those that are not there read anything.
type OwnReadings<const LANES: usize> = [[f32; LANES]; MAX_OWN_COLUMNS];

/// A row passes if its reading is at most the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Test<C> {
    threshold: f32,
    column: C,
    /// The leaves that a row may still reach when it fails.
    left: u64,
}

/// Tests of shared values, tree by tree.
#[derive(Debug, Clone, Default, PartialEq)]
struct SharedTests {
    columns: Vec<Column>,
    groups: Vec<Group>,
    /// Where the groups of each tree end.
    ends: Vec<u32>,
}

/// Tests of one tree on columns of one bank. Those that fill a group up leave all leaves.
#[derive(Debug, Clone, PartialEq)]
#[repr(align(64))]
struct Group {
    left: [u64; GROUP],
    thresholds: [f32; GROUP],
    /// Within the bank.
    columns: [u8; GROUP],
    bank: u32,
}

/// Tests of the other values, tree by tree.
#[derive(Debug, Clone, Default, PartialEq)]
struct OwnTests {
    columns: Vec<Column>,
    tests: Vec<Test<u8>>,
    /// Where the tests of each tree end.
    ends: Vec<u32>,
}

impl Factored {
    /// Joins forests whose rows share their first `n_shared` values; `None` when a tree has more than [`MAX_LEAVES`] leaves,
    /// when the forests read rows of different widths, or when they read the other values in more than 256 ways.
    pub fn new(forests: &[&Forest], n_shared: usize) -> Option<Self> {
        let n_features = forests.first()?.n_features;
        if forests.iter().any(|forest| forest.n_features != n_features) {
            return None;
        }
        let mut parts = Parts { n_shared, ..Parts::default() };
        let mut ends = Vec::with_capacity(forests.len());
        for forest in forests {
            for tree in &forest.trees {
                parts.add(forest, tree)?;
            }
            ends.push(parts.whole.len());
        }
        let Parts { whole, mut leaves, first_leaves, shared, own, .. } = parts;
        leaves.extend([0.0; MAX_LEAVES]);
        Some(Self { n_features, ends, whole, leaves, first_leaves, shared, own })
    }

    /// Whether this processor has the registers (AVX-512 or AVX2) with which this is faster than the walk for eight rows and
    /// more. Without them it is ten times as slow, and answers the same.
    pub fn is_worth_it() -> bool {
        #[cfg(target_arch = "x86_64")]
        return avx512::is_there() || avx2::is_there();
        #[cfg(not(target_arch = "x86_64"))]
        false
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
        let Scratch { shared_readings, shared, .. } = scratch;
        self.shared.read(&rows[..width], shared_readings);
        shared.clear();
        shared.extend_from_slice(&self.whole);
        self.shared.rule_out(shared_readings, shared);
        if n_rows <= FEW {
            self.score_blocks::<FEW>(rows, width, scratch, out);
        } else {
            self.score_blocks::<MANY>(rows, width, scratch, out);
        }
    }

    fn score_blocks<const LANES: usize>(&self, rows: &[f32], width: usize, scratch: &mut Scratch, out: &mut [f64]) {
        let n_rows = rows.len() / width;
        let Scratch { shared, readings, reached, .. } = scratch;
        readings.resize(MAX_OWN_COLUMNS * LANES, 0.0);
        let readings: &mut OwnReadings<LANES> =
            readings.as_chunks_mut().0.first_chunk_mut().expect("just made as large");
        reached.resize(shared.len() * LANES, 0);
        let (reached, _) = reached.as_chunks_mut::<LANES>();
        for (block, first) in rows.chunks(width * LANES).zip((0..).step_by(LANES)) {
            let taken = block.len() / width;
            // The last row stands in for those that are missing.
            let rows = array::from_fn(|lane| &block[lane.min(taken - 1) * width..][..width]);
            for (column, readings) in self.own.columns.iter().zip(readings.iter_mut()) {
                *readings = rows.map(|row| column.read(row));
            }
            Block { own: &self.own, shared, readings }.reach(reached);
            let mut tree = 0;
            for (end, out) in self.ends.iter().zip(out.chunks_exact_mut(n_rows)) {
                let sums = self.sum(tree..*end, reached);
                out[first..][..taken].copy_from_slice(&sums[..taken]);
                tree = *end;
            }
        }
    }

    /// Adds up the leaves of these trees.
    fn sum<const LANES: usize>(&self, trees: Range<usize>, reached: &[[u8; LANES]]) -> [f64; LANES] {
        let mut sums = [0.0; LANES];
        for (first, reached) in self.first_leaves[trees.clone()].iter().zip(&reached[trees]) {
            let leaves: &[f64; MAX_LEAVES] =
                self.leaves[*first as usize..].first_chunk().expect("enough that stand for none follow");
            for (sum, leaf) in sums.iter_mut().zip(reached) {
                *sum += leaves[usize::from(*leaf) % MAX_LEAVES];
            }
        }
        sums
    }
}

impl SharedTests {
    /// Adds the tests of the next tree.
    fn add_tree(&mut self, mut tests: Vec<Test<u32>>) -> Option<()> {
        let bank = |test: &Test<u32>| test.column / BANK as u32;
        tests.sort_by_key(bank);
        for of_bank in tests.chunk_by(|a, b| bank(a) == bank(b)) {
            for tests in of_bank.chunks(GROUP) {
                let mut group = Group {
                    left: [u64::MAX; GROUP],
                    thresholds: [0.0; GROUP],
                    columns: [0; GROUP],
                    bank: bank(&tests[0]),
                };
                for (place, test) in tests.iter().enumerate() {
                    group.left[place] = test.left;
                    group.thresholds[place] = test.threshold;
                    group.columns[place] = (test.column % BANK as u32) as u8;
                }
                self.groups.push(group);
            }
        }
        self.ends.push(u32::try_from(self.groups.len()).ok()?);
        Some(())
    }

    /// Reads all columns of a row.
    fn read(&self, row: &[f32], into: &mut Vec<[f32; BANK]>) {
        into.resize(self.columns.len().div_ceil(BANK), [0.0; BANK]);
        for (column, reading) in self.columns.iter().zip(into.as_flattened_mut()) {
            *reading = column.read(row);
        }
    }

    /// Takes from each tree's word the leaves that these readings rule out.
    fn rule_out(&self, readings: &[[f32; BANK]], words: &mut [u64]) {
        #[cfg(target_arch = "x86_64")]
        if avx512::is_there() {
            return avx512::rule_out(self, readings, words);
        } else if avx2::is_there() {
            return avx2::rule_out(self, readings, words);
        }
        self.rule_out_with(|groups| left(groups, readings), words);
    }

    /// The same with a way to say what the groups of one tree leave.
    #[inline(always)]
    fn rule_out_with(&self, left: impl Fn(&[Group]) -> u64, words: &mut [u64]) {
        let mut start = 0;
        for (word, end) in words.iter_mut().zip(&self.ends) {
            let end = *end as usize;
            *word &= left(&self.groups[start..end]);
            start = end;
        }
    }
}

/// The leaves that the groups of one tree leave.
fn left(groups: &[Group], readings: &[[f32; BANK]]) -> u64 {
    let mut left = u64::MAX;
    for group in groups {
        let readings = readings[group.bank as usize];
        for ((column, threshold), word) in group.columns.iter().zip(&group.thresholds).zip(&group.left) {
            left &= if readings[usize::from(*column)] <= *threshold { u64::MAX } else { *word };
        }
    }
    left
}

/// Rows that are answered at a time.
struct Block<'a, const LANES: usize> {
    own: &'a OwnTests,
    /// What the shared tests leave of each tree.
    shared: &'a [u64],
    /// What each column reads of each row.
    readings: &'a OwnReadings<LANES>,
}

impl<const LANES: usize> Block<'_, LANES> {
    /// Finds the leaf of each tree that each row reaches.
    fn reach(&self, reached: &mut [[u8; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if avx512::is_there() {
            return avx512::reach(self, reached);
        } else if avx2::is_there() {
            return avx2::reach(self, reached);
        }
        self.reach_with(lowest_left, reached);
    }

    /// The same with a way to find the leaf of one tree: given what is left of the tree, its tests, and what these read.
    #[inline(always)]
    fn reach_with(
        &self,
        lowest_left: impl Fn(u64, &[Test<u8>], &OwnReadings<LANES>) -> [u8; LANES],
        reached: &mut [[u8; LANES]],
    ) {
        let mut start = 0;
        for ((reached, word), end) in reached.iter_mut().zip(self.shared).zip(&self.own.ends) {
            let end = *end as usize;
            *reached = lowest_left(*word, &self.own.tests[start..end], self.readings);
            start = end;
        }
    }
}

fn lowest_left<const LANES: usize>(word: u64, tests: &[Test<u8>], readings: &OwnReadings<LANES>) -> [u8; LANES] {
    let mut words = [word; LANES];
    for test in tests {
        for (word, value) in words.iter_mut().zip(&readings[usize::from(test.column)]) {
            *word &= if *value <= test.threshold { u64::MAX } else { test.left };
        }
    }
    words.map(|word| word.trailing_zeros() as u8)
}

/// Eight words in one register.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use std::arch::x86_64::{
        __m256, __m512, __m512i, _CMP_NLE_UQ, _mm_loadu_si128, _mm_storel_epi64, _mm256_cmp_ps_mask, _mm256_loadu_ps,
        _mm256_set1_ps, _mm512_add_epi64, _mm512_andnot_epi64, _mm512_cmp_ps_mask, _mm512_cvtepi64_epi8,
        _mm512_cvtepu8_epi32, _mm512_loadu_epi64, _mm512_loadu_ps, _mm512_mask_and_epi64, _mm512_permutex2var_ps,
        _mm512_popcnt_epi64, _mm512_reduce_and_epi64, _mm512_set1_epi64,
    };

    use super::{BANK, Block, Group, OwnReadings, STEP, SharedTests, Test};

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
    }

    pub(super) fn rule_out(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
        assert!(is_there(), "the caller asked");
        // SAFETY: the processor has the instructions.
        unsafe { rule_out_wide(tests, readings, words) }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn rule_out_wide(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
        let left = |groups: &[Group]| {
            let mut left = _mm512_set1_epi64(-1);
            for group in groups {
                let [low, high]: &[[f32; 16]; 2] = readings[group.bank as usize].as_chunks().0.try_into().expect("two");
                // SAFETY: sixteen columns there.
                let columns = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(group.columns.as_ptr().cast()) });
                let values = _mm512_permutex2var_ps(sixteen(low), columns, sixteen(high));
                let fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(values, sixteen(&group.thresholds));
                for (words, fails) in group.left.as_chunks::<8>().0.iter().zip(fails.to_le_bytes()) {
                    // SAFETY: eight words there.
                    let words = unsafe { _mm512_loadu_epi64(words.as_ptr().cast()) };
                    left = _mm512_mask_and_epi64(left, fails, left, words);
                }
            }
            _mm512_reduce_and_epi64(left).cast_unsigned()
        };
        tests.rule_out_with(left, words);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sixteen(values: &[f32; 16]) -> __m512 {
        // SAFETY: sixteen values there.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    pub(super) fn reach<const LANES: usize>(block: &Block<'_, LANES>, reached: &mut [[u8; LANES]]) {
        assert!(is_there(), "the caller asked");
        // SAFETY: the processor has the instructions.
        unsafe { reach_wide(block, reached) }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn reach_wide<const LANES: usize>(block: &Block<'_, LANES>, reached: &mut [[u8; LANES]]) {
        block.reach_with(
            |word, tests, readings| match LANES {
                8 => lowest_left::<LANES, 1>(word, tests, readings),
                _ => lowest_left::<LANES, 2>(word, tests, readings),
            },
            reached,
        );
    }

    /// As [`super::lowest_left`], with `EIGHTS` registers of words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn lowest_left<const LANES: usize, const EIGHTS: usize>(
        word: u64,
        tests: &[Test<u8>],
        readings: &OwnReadings<LANES>,
    ) -> [u8; LANES] {
        let mut words = [_mm512_set1_epi64(word.cast_signed()); EIGHTS];
        for test in tests.as_chunks::<STEP>().0 {
            for test in test {
                let threshold = _mm256_set1_ps(test.threshold);
                let left = _mm512_set1_epi64(test.left.cast_signed());
                let (values, _) = readings[usize::from(test.column)].as_chunks::<8>();
                for (word, values) in words.iter_mut().zip(values) {
                    let fails = _mm256_cmp_ps_mask::<_CMP_NLE_UQ>(load(values), threshold);
                    *word = _mm512_mask_and_epi64(*word, fails, *word, left);
                }
            }
        }
        let mut lowest = [0; LANES];
        for (lowest, word) in lowest.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            // SAFETY: eight bytes there.
            unsafe { _mm_storel_epi64(lowest.as_mut_ptr().cast(), _mm512_cvtepi64_epi8(trailing_zeros(word))) };
        }
        lowest
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn load(values: &[f32; 8]) -> __m256 {
        // SAFETY: eight values there.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    /// Bits below the lowest that is set.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    fn trailing_zeros(word: __m512i) -> __m512i {
        _mm512_popcnt_epi64(_mm512_andnot_epi64(word, _mm512_add_epi64(word, _mm512_set1_epi64(-1))))
    }
}

/// Four words in one register.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _CMP_NLE_UQ, _mm_loadl_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_castps_si256,
        _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi32_epi64, _mm256_cvtepu8_epi32, _mm256_extracti128_si256,
        _mm256_i32gather_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_set1_epi64x,
        _mm256_set1_ps, _mm256_storeu_si256,
    };

    use super::{BANK, Block, Group, OwnReadings, SharedTests, Test};

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1")
    }

    pub(super) fn rule_out(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
        assert!(is_there(), "the caller asked");
        // SAFETY: the processor has the instructions.
        unsafe { rule_out_wide(tests, readings, words) }
    }

    #[target_feature(enable = "avx2,bmi1")]
    fn rule_out_wide(tests: &SharedTests, readings: &[[f32; BANK]], words: &mut [u64]) {
        let left = |groups: &[Group]| {
            let mut left = _mm256_set1_epi64x(-1);
            for group in groups {
                let readings: &[f32; BANK] = &readings[group.bank as usize];
                let of_eight = group.columns.as_chunks::<8>().0.iter().zip(group.thresholds.as_chunks::<8>().0);
                for ((columns, thresholds), words) in of_eight.zip(group.left.as_chunks::<8>().0) {
                    // SAFETY: eight columns there.
                    let columns = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(columns.as_ptr().cast()) });
                    let columns = _mm256_and_si256(columns, _mm256_set1_epi32(BANK as i32 - 1));
                    // SAFETY: no column is beyond the bank.
                    let values = unsafe { _mm256_i32gather_ps::<4>(readings.as_ptr(), columns) };
                    for (words, fails) in words.as_chunks::<4>().0.iter().zip(failing(values, eight(thresholds))) {
                        // SAFETY: four words there.
                        let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
                        left = _mm256_andnot_si256(_mm256_andnot_si256(words, fails), left);
                    }
                }
            }
            four(left).into_iter().fold(u64::MAX, |all, word| all & word)
        };
        tests.rule_out_with(left, words);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn eight(values: &[f32; 8]) -> __m256 {
        // SAFETY: eight values there.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    /// All ones for each value that is not at most its threshold, four at a time.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn failing(values: __m256, thresholds: __m256) -> [__m256i; 2] {
        let fails = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_NLE_UQ>(values, thresholds));
        [_mm256_castsi256_si128(fails), _mm256_extracti128_si256::<1>(fails)].map(|half| _mm256_cvtepi32_epi64(half))
    }

    pub(super) fn reach<const LANES: usize>(block: &Block<'_, LANES>, reached: &mut [[u8; LANES]]) {
        assert!(is_there(), "the caller asked");
        // SAFETY: the processor has the instructions.
        unsafe { reach_wide(block, reached) }
    }

    #[target_feature(enable = "avx2,bmi1")]
    fn reach_wide<const LANES: usize>(block: &Block<'_, LANES>, reached: &mut [[u8; LANES]]) {
        let lowest_left = |word, tests: &[Test<u8>], readings: &OwnReadings<LANES>| {
            let mut lowest = [0; LANES];
            for (eight, lowest) in lowest.as_chunks_mut().0.iter_mut().enumerate() {
                *lowest = lowest_left_of_eight(word, tests, readings, 8 * eight);
            }
            lowest
        };
        block.reach_with(lowest_left, reached);
    }

    /// As [`super::lowest_left`], for the eight rows from `first` on.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn lowest_left_of_eight<const LANES: usize>(
        word: u64,
        tests: &[Test<u8>],
        readings: &OwnReadings<LANES>,
        first: usize,
    ) -> [u8; 8] {
        let mut words = [_mm256_set1_epi64x(word.cast_signed()); 2];
        for test in tests {
            let left = _mm256_set1_epi64x(test.left.cast_signed());
            let values = readings[usize::from(test.column)][first..].first_chunk().expect("eight rows at a time");
            for (word, fails) in words.iter_mut().zip(failing(eight(values), _mm256_set1_ps(test.threshold))) {
                *word = _mm256_andnot_si256(_mm256_andnot_si256(left, fails), *word);
            }
        }
        let words: [u64; 8] = *[four(words[0]), four(words[1])].as_flattened().first_chunk().expect("eight words");
        words.map(|word| word.trailing_zeros() as u8)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn four(words: __m256i) -> [u64; 4] {
        let mut four = [0; 4];
        // SAFETY: four words there.
        unsafe { _mm256_storeu_si256(four.as_mut_ptr().cast(), words) };
        four
    }
}

/// What a [`Factored`] is made of, while trees are added.
#[derive(Default)]
struct Parts {
    n_shared: usize,
    whole: Vec<u64>,
    leaves: Vec<f64>,
    first_leaves: Vec<u32>,
    shared: SharedTests,
    own: OwnTests,
}

impl Parts {
    /// `None` when a word cannot hold the tree's leaves.
    fn add(&mut self, forest: &Forest, tree: &FlatTree) -> Option<()> {
        let first = self.leaves.len();
        self.first_leaves.push(u32::try_from(first).ok()?);
        // Leaves that no row reaches, because a test before them lets none pass.
        let mut unreached = 0;
        let mut shared = Vec::new();
        let all = self.add_node(forest, tree, 0, first, &mut unreached, &mut shared)?;
        self.whole.push(all & !unreached);
        self.shared.add_tree(shared)?;
        while !self.own.tests.len().is_multiple_of(STEP) {
            self.own.tests.push(Test { threshold: f32::INFINITY, column: 0, left: u64::MAX });
        }
        self.own.ends.push(u32::try_from(self.own.tests.len()).ok()?);
        Some(())
    }

    /// Adds what is at and below a node; returns its leaves.
    fn add_node(
        &mut self,
        forest: &Forest,
        tree: &FlatTree,
        place: usize,
        first: usize,
        unreached: &mut u64,
        shared: &mut Vec<Test<u32>>,
    ) -> Option<u64> {
        let node = forest.nodes[tree.range()][place];
        if node.is_leaf(place) {
            let bit = 1_u64.checked_shl(u32::try_from(self.leaves.len() - first).ok()?)?;
            self.leaves.push(forest.values[tree.start + place]);
            return Some(bit);
        }
        let passed = self.add_node(forest, tree, node.first_child(), first, unreached, shared)?;
        let failed = self.add_node(forest, tree, node.first_child() + 1, first, unreached, shared)?;
        let column = Column { feature: node.feature(), reading: node.reading() };
        match node.compared_with() {
            threshold if threshold.is_nan() => *unreached |= passed,
            threshold => {
                let left = !passed;
                if usize::from(column.feature) < self.n_shared {
                    let column = place_of(column, &mut self.shared.columns) as u32;
                    shared.push(Test { threshold, column, left });
                } else {
                    let column = place_of(column, &mut self.own.columns).try_into().ok()?;
                    self.own.tests.push(Test { threshold, column, left });
                }
            }
        }
        Some(passed | failed)
    }
}

/// Where a column is among those known, which it joins if it is new.
fn place_of(column: Column, known: &mut Vec<Column>) -> usize {
    known.iter().position(|one| *one == column).unwrap_or_else(|| {
        known.push(column);
        known.len() - 1
    })
}

const _: () = assert!(MAX_FEATURES * 4 <= 1 << 16, "a feature and its reading fit a test's word");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tests::{Dice, MISSING};

    const N_FEATURES: usize = 20;
    /// With their readings more columns than a bank holds.
    const N_SHARED: usize = 12;

    fn dice(seed: u64) -> Dice {
        let mut dice = Dice::new(seed);
        dice.n_features = N_FEATURES;
        dice
    }

    /// Rows that agree in their first values.
    fn candidates(dice: &mut Dice, n_rows: usize, width: usize) -> Vec<f32> {
        let mut rows = dice.rows(n_rows, width);
        let shared = rows[..N_SHARED.min(rows.len())].to_vec();
        rows.chunks_exact_mut(width).for_each(|row| row[..N_SHARED].copy_from_slice(&shared));
        rows
    }

    fn some_forests(dice: &mut Dice) -> Vec<Forest> {
        [1, 7, 30].map(|n_trees| Forest::new(N_FEATURES, &dice.trees(n_trees, &MISSING)).expect("sound trees")).into()
    }

    fn factored(forests: &[Forest]) -> Factored {
        Factored::new(&forests.iter().collect::<Vec<_>>(), N_SHARED).expect("small trees")
    }

    #[test]
    fn answers_are_those_of_the_walk_bit_for_bit() {
        for seed in 0..40 {
            let mut dice = dice(seed);
            let forests = some_forests(&mut dice);
            let factored = factored(&forests);
            assert!(factored.shared.columns.len() > BANK);
            let mut scratch = Scratch::default();
            for (n_rows, width) in [(0, 20), (1, 20), (3, 21), (8, 20), (9, 20), (16, 22), (17, 20), (40, 20)] {
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

    #[test]
    fn every_processor_answers_the_same() {
        let mut dice = dice(7);
        let forests = some_forests(&mut dice);
        let factored = factored(&forests);
        for _ in 0..200 {
            let rows = candidates(&mut dice, FEW, N_FEATURES);
            let mut scratch = Scratch::default();
            let mut expected = vec![f64::NAN; FEW * forests.len()];
            factored.predict_rows(&rows, N_FEATURES, &mut scratch, &mut expected);
            let Scratch { shared_readings, shared, readings, reached } = &scratch;
            let mut words = factored.whole.clone();
            factored.shared.rule_out_with(|groups| left(groups, shared_readings), &mut words);
            assert_eq!(words, *shared);
            let block =
                Block { own: &factored.own, shared, readings: readings.as_chunks().0.first_chunk().expect("all") };
            let mut leaves = vec![[0; FEW]; shared.len()];
            block.reach_with(lowest_left, &mut leaves);
            assert_eq!(leaves.as_flattened(), reached);
            #[cfg(target_arch = "x86_64")]
            if avx2::is_there() {
                words.clone_from(&factored.whole);
                avx2::rule_out(&factored.shared, shared_readings, &mut words);
                assert_eq!(words, *shared);
                leaves.fill([0; FEW]);
                avx2::reach(&block, &mut leaves);
                assert_eq!(leaves.as_flattened(), reached);
            }
        }
    }

    #[test]
    fn what_does_not_fit_a_word_is_left_to_the_walk() {
        let mut dice = dice(1);
        let mut forest = |n_splits| Forest::new(N_FEATURES, &[dice.tree(n_splits, &MISSING)]).expect("a sound tree");
        assert!(Factored::new(&[&forest(63)], N_SHARED).is_some());
        assert!(Factored::new(&[&forest(64)], N_SHARED).is_none());
        let narrow = Forest::new(4, &[vec![crate::forest::TreeNode::Leaf(1.0)]]).expect("a sound tree");
        assert!(Factored::new(&[&forest(3), &narrow], N_SHARED).is_none(), "their rows differ");
        assert!(Factored::new(&[], N_SHARED).is_none());
    }

    #[test]
    #[should_panic(expected = "rows and answers must match")]
    fn rows_that_do_not_match_the_answers_are_a_bug() {
        let forests = some_forests(&mut dice(1));
        factored(&forests[..1]).predict_rows(
            &[0.0; 2 * N_FEATURES],
            N_FEATURES,
            &mut Scratch::default(),
            &mut [0.0; 3],
        );
    }
}
