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
/// The own tests of half a tree are filled up to a multiple of this with some that change nothing, so that loops end when expected.
const STEP: usize = 4;
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
    /// The values of all leaves, those of one tree side by side, then [`MAX_LEAVES`] that stand for none.
    leaves: Vec<f64>,
    /// Where each tree is.
    places: Vec<Place>,
    // From here on trees with as many tests stand side by side, so that the processor foresees where loops end.
    /// All leaves of each tree that some row can reach.
    whole: Vec<u64>,
    shared: SharedTests,
    own: OwnTests,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    first_leaf: u32,
    /// Where its word and its tests are among those of all trees.
    among_tests: u32,
}

/// Buffers that a thread keeps between answers.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What each shared column reads.
    shared_readings: Vec<[f32; BANK]>,
    /// What each tree's shared tests leave.
    shared: Vec<u64>,
    lines: Vec<Line>,
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

/// What a column reads of the rows of a block: a cache line, so that registers are loaded at once.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([f32; MANY]);

/// A line for each column; those of columns that are not there hold anything.
type Lines = [Line; MAX_OWN_COLUMNS];

/// The leaves that one half of a tree's word stands for.
const HALF: usize = MAX_LEAVES / 2;

/// A row passes if its reading is at most the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SharedTest {
    threshold: f32,
    column: usize,
    /// The leaves that a row may still reach when it fails.
    left: u64,
}

/// The same for the leaves of one half.
#[derive(Debug, Clone, Copy, PartialEq)]
struct OwnTest {
    threshold: f32,
    left: u32,
    column: u8,
}

/// Some tests of one half. Those that fill it up leave all leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    thresholds: [f32; STEP],
    left: [u32; STEP],
    columns: [u8; STEP],
}

impl Step {
    fn new(tests: &[OwnTest]) -> Self {
        let mut step = Self { thresholds: [0.0; STEP], left: [u32::MAX; STEP], columns: [0; STEP] };
        for (place, test) in tests.iter().enumerate() {
            step.thresholds[place] = test.threshold;
            step.left[place] = test.left;
            step.columns[place] = test.column;
        }
        step
    }

    /// What each test reads, its threshold, and what it leaves.
    #[inline(always)]
    fn tests<'a>(&self, lines: &'a Lines) -> [(&'a [f32; MANY], f32, u32); STEP] {
        // Loads are the bottleneck: one for all columns.
        let columns = u32::from_le_bytes(self.columns);
        array::from_fn(|place| {
            let column = (columns >> (place as u32 * u8::BITS)) as u8;
            (&lines[usize::from(column)].0, self.thresholds[place], self.left[place])
        })
    }
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

/// Tests of the other values, tree by tree, first those of the lower half of its leaves: few tests rule out leaves of both,
/// and registers hold twice as many halves as words.
#[derive(Debug, Clone, Default, PartialEq)]
struct OwnTests {
    columns: Vec<Column>,
    steps: Vec<Step>,
    /// Where the steps of each half end.
    ends: Vec<[u32; 2]>,
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
            ends.push(parts.trees.len());
        }
        parts.join(n_features, ends)
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
        let Scratch { shared, lines, reached, .. } = scratch;
        lines.resize(MAX_OWN_COLUMNS, Line([0.0; MANY]));
        let lines: &mut Lines = lines.first_chunk_mut().expect("just made as many");
        reached.resize(shared.len() * LANES, 0);
        let (reached, _) = reached.as_chunks_mut::<LANES>();
        for (block, first) in rows.chunks(width * LANES).zip((0..).step_by(LANES)) {
            let taken = block.len() / width;
            // The last row stands in for those that are missing.
            let rows: [_; LANES] = array::from_fn(|lane| &block[lane.min(taken - 1) * width..][..width]);
            for (column, line) in self.own.columns.iter().zip(lines.iter_mut()) {
                line.0[..LANES].copy_from_slice(&rows.map(|row| column.read(row)));
            }
            Block { own: &self.own, shared, lines }.reach(reached);
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
        for place in &self.places[trees] {
            let leaves = self.leaves[place.first_leaf as usize..].first_chunk();
            let leaves: &[f64; MAX_LEAVES] = leaves.expect("enough that stand for none follow");
            let reached = &reached[place.among_tests as usize];
            for (sum, leaf) in sums.iter_mut().zip(reached) {
                *sum += leaves[usize::from(*leaf) % MAX_LEAVES];
            }
        }
        sums
    }
}

impl SharedTests {
    /// Adds the tests of the next tree.
    fn add_tree(&mut self, mut tests: Vec<SharedTest>) -> Option<()> {
        let bank = |test: &SharedTest| test.column / BANK;
        tests.sort_by_key(bank);
        for of_bank in tests.chunk_by(|a, b| bank(a) == bank(b)) {
            for tests in of_bank.chunks(GROUP) {
                let mut group = Group {
                    left: [u64::MAX; GROUP],
                    thresholds: [0.0; GROUP],
                    columns: [0; GROUP],
                    bank: bank(&tests[0]) as u32,
                };
                for (place, test) in tests.iter().enumerate() {
                    group.left[place] = test.left;
                    group.thresholds[place] = test.threshold;
                    group.columns[place] = (test.column % BANK) as u8;
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

impl OwnTests {
    /// Adds the tests of the next tree.
    fn add_tree(&mut self, halves: [Vec<OwnTest>; 2]) -> Option<()> {
        let mut ends = [0; 2];
        for (tests, end) in halves.into_iter().zip(&mut ends) {
            self.steps.extend(tests.chunks(STEP).map(Step::new));
            *end = u32::try_from(self.steps.len()).ok()?;
        }
        self.ends.push(ends);
        Some(())
    }
}

/// Rows that are answered at a time.
struct Block<'a> {
    own: &'a OwnTests,
    /// What the shared tests leave of each tree.
    shared: &'a [u64],
    lines: &'a Lines,
}

impl Block<'_> {
    /// Finds the leaf of each tree that each row reaches.
    fn reach<const LANES: usize>(&self, reached: &mut [[u8; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if avx512::is_there() {
            return avx512::reach(self, reached);
        } else if avx2::is_there() {
            return avx2::reach(self, reached);
        }
        self.reach_with(lowest_left, reached);
    }

    /// The same with a way to find the leaf of one tree: given what is left of its halves, their tests, and what these read.
    #[inline(always)]
    fn reach_with<const LANES: usize>(
        &self,
        lowest_left: impl Fn([u32; 2], [&[Step]; 2], &Lines) -> [u8; LANES],
        reached: &mut [[u8; LANES]],
    ) {
        let mut start = 0;
        for ((reached, word), ends) in reached.iter_mut().zip(self.shared).zip(&self.own.ends) {
            let [middle, end] = ends.map(|end| end as usize);
            let steps = [&self.own.steps[start..middle], &self.own.steps[middle..end]];
            *reached = lowest_left([*word as u32, (*word >> HALF) as u32], steps, self.lines);
            start = end;
        }
    }
}

fn lowest_left<const LANES: usize>(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines) -> [u8; LANES] {
    let mut halves = halves.map(|half| [half; LANES]);
    for (half, steps) in halves.iter_mut().zip(steps) {
        for (values, threshold, left) in steps.iter().flat_map(|step| step.tests(lines)) {
            for (half, value) in half.iter_mut().zip(values) {
                *half &= if *value <= threshold { u32::MAX } else { left };
            }
        }
    }
    array::from_fn(|lane| trailing_zeros(halves[0][lane], halves[1][lane]))
}

#[inline(always)]
fn trailing_zeros(low: u32, high: u32) -> u8 {
    (u64::from(low) | u64::from(high) << HALF).trailing_zeros() as u8
}

/// Eight words or sixteen halves in one register.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use std::arch::x86_64::{
        __m256, __m512, _CMP_NLE_UQ, _mm_loadu_si128, _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi32,
        _mm256_andnot_si256, _mm256_cmp_ps_mask, _mm256_cvtepi32_epi8, _mm256_loadu_ps, _mm256_mask_add_epi32,
        _mm256_mask_and_epi32, _mm256_mask_mov_epi32, _mm256_popcnt_epi32, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_testn_epi32_mask, _mm512_add_epi32, _mm512_andnot_epi32, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi8,
        _mm512_cvtepu8_epi32, _mm512_loadu_epi64, _mm512_loadu_ps, _mm512_mask_add_epi32, _mm512_mask_and_epi32,
        _mm512_mask_and_epi64, _mm512_mask_mov_epi32, _mm512_permutex2var_ps, _mm512_popcnt_epi32,
        _mm512_reduce_and_epi64, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps, _mm512_testn_epi32_mask,
    };

    use super::{BANK, Block, Group, HALF, Lines, SharedTests, Step};

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

    pub(super) fn reach<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
        assert!(is_there(), "the caller asked");
        // SAFETY: the processor has the instructions.
        unsafe { reach_wide(block, reached) }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn reach_wide<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
        block.reach_with(
            |halves, steps, lines| {
                let mut lowest = [0; LANES];
                if let Some(lowest) = lowest.first_chunk_mut::<16>() {
                    *lowest = lowest_left_of_sixteen(halves, steps, lines);
                } else if let Some(lowest) = lowest.first_chunk_mut::<8>() {
                    *lowest = lowest_left_of_eight(halves, steps, lines);
                }
                lowest
            },
            reached,
        );
    }

    /// As [`super::lowest_left`], for the first eight rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn lowest_left_of_eight(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines) -> [u8; 8] {
        let mut halves = halves.map(|half| _mm256_set1_epi32(half.cast_signed()));
        for (half, steps) in halves.iter_mut().zip(steps) {
            for step in steps {
                for (values, threshold, left) in step.tests(lines) {
                    let values = eight(values.first_chunk().expect("eight rows"));
                    let fails = _mm256_cmp_ps_mask::<_CMP_NLE_UQ>(values, _mm256_set1_ps(threshold));
                    *half = _mm256_mask_and_epi32(*half, fails, *half, _mm256_set1_epi32(left.cast_signed()));
                }
            }
        }
        let [low, high] = halves;
        let none = _mm256_testn_epi32_mask(low, low);
        let half = _mm256_mask_mov_epi32(low, none, high);
        let below = _mm256_andnot_si256(half, _mm256_add_epi32(half, _mm256_set1_epi32(-1)));
        let zeros = _mm256_popcnt_epi32(below);
        let lowest = _mm256_mask_add_epi32(zeros, none, zeros, _mm256_set1_epi32(HALF as i32));
        let mut bytes = [0; 8];
        // SAFETY: eight bytes there.
        unsafe { _mm_storel_epi64(bytes.as_mut_ptr().cast(), _mm256_cvtepi32_epi8(lowest)) };
        bytes
    }

    /// As [`super::lowest_left`], for the first sixteen rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512vpopcntdq")]
    fn lowest_left_of_sixteen(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines) -> [u8; 16] {
        let mut halves = halves.map(|half| _mm512_set1_epi32(half.cast_signed()));
        for (half, steps) in halves.iter_mut().zip(steps) {
            for step in steps {
                for (values, threshold, left) in step.tests(lines) {
                    let fails = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(sixteen(values), _mm512_set1_ps(threshold));
                    *half = _mm512_mask_and_epi32(*half, fails, *half, _mm512_set1_epi32(left.cast_signed()));
                }
            }
        }
        let [low, high] = halves;
        let none = _mm512_testn_epi32_mask(low, low);
        let half = _mm512_mask_mov_epi32(low, none, high);
        let below = _mm512_andnot_epi32(half, _mm512_add_epi32(half, _mm512_set1_epi32(-1)));
        let zeros = _mm512_popcnt_epi32(below);
        let lowest = _mm512_mask_add_epi32(zeros, none, zeros, _mm512_set1_epi32(HALF as i32));
        let mut bytes = [0; 16];
        // SAFETY: sixteen bytes there.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(lowest)) };
        bytes
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn eight(values: &[f32; 8]) -> __m256 {
        // SAFETY: eight values there.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }
}

/// Four words or eight halves in one register.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _CMP_LE_OQ, _mm_loadl_epi64, _mm256_and_si256, _mm256_castps_si256, _mm256_castsi256_si128,
        _mm256_cmp_ps, _mm256_cvtepi32_epi64, _mm256_cvtepu8_epi32, _mm256_extracti128_si256, _mm256_i32gather_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps,
        _mm256_storeu_si256,
    };
    use std::array;
    use std::ops::BitAnd;

    use super::{BANK, Block, Group, HALF, Lines, SharedTests, Step, trailing_zeros};

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
                    let passes = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_LE_OQ>(values, eight(thresholds)));
                    let passes = [_mm256_castsi256_si128(passes), _mm256_extracti128_si256::<1>(passes)];
                    for (words, passes) in words.as_chunks::<4>().0.iter().zip(passes) {
                        // SAFETY: four words there.
                        let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
                        left = _mm256_and_si256(left, _mm256_or_si256(_mm256_cvtepi32_epi64(passes), words));
                    }
                }
            }
            let [low, high] =
                [0, 1].map(|half| words_of(left).into_iter().skip(half).step_by(2).fold(u32::MAX, BitAnd::bitand));
            u64::from(low) | u64::from(high) << HALF
        };
        tests.rule_out_with(left, words);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn eight(values: &[f32; 8]) -> __m256 {
        // SAFETY: eight values there.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    pub(super) fn reach<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
        assert!(is_there(), "the caller asked");
        // SAFETY: the processor has the instructions.
        unsafe { reach_wide(block, reached) }
    }

    #[target_feature(enable = "avx2,bmi1")]
    fn reach_wide<const LANES: usize>(block: &Block<'_>, reached: &mut [[u8; LANES]]) {
        let lowest_left = |halves, steps: [&[Step]; 2], lines: &Lines| {
            let mut lowest = [0; LANES];
            for (eight, lowest) in lowest.as_chunks_mut().0.iter_mut().enumerate() {
                *lowest = lowest_left_of_eight(halves, steps, lines, 8 * eight);
            }
            lowest
        };
        block.reach_with(lowest_left, reached);
    }

    /// As [`super::lowest_left`], for the eight rows from `first` on.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn lowest_left_of_eight(halves: [u32; 2], steps: [&[Step]; 2], lines: &Lines, first: usize) -> [u8; 8] {
        let mut halves = halves.map(|half| _mm256_set1_epi32(half.cast_signed()));
        for (half, steps) in halves.iter_mut().zip(steps) {
            for step in steps {
                for (values, threshold, left) in step.tests(lines) {
                    let values = eight(values[first..].first_chunk().expect("eight rows at a time"));
                    let passes = _mm256_cmp_ps::<_CMP_LE_OQ>(values, _mm256_set1_ps(threshold));
                    let left = _mm256_or_si256(_mm256_castps_si256(passes), _mm256_set1_epi32(left.cast_signed()));
                    *half = _mm256_and_si256(*half, left);
                }
            }
        }
        let [low, high] = halves.map(|half| words_of(half));
        array::from_fn(|lane| trailing_zeros(low[lane], high[lane]))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn words_of(register: __m256i) -> [u32; 8] {
        let mut words = [0; 8];
        // SAFETY: eight words there.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), register) };
        words
    }
}

/// What a [`Factored`] is made of, while trees are added.
#[derive(Default)]
struct Parts {
    n_shared: usize,
    leaves: Vec<f64>,
    shared_columns: Vec<Column>,
    own_columns: Vec<Column>,
    trees: Vec<TreeTests>,
}

/// One tree of them.
#[derive(Default)]
struct TreeTests {
    first_leaf: u32,
    /// All leaves.
    whole: u64,
    /// Leaves that no row reaches, because a test before them lets none pass.
    unreached: u64,
    shared: Vec<SharedTest>,
    own: [Vec<OwnTest>; 2],
}

impl TreeTests {
    /// How often the loops over its tests turn.
    fn turns(&self) -> [usize; 3] {
        let [low, high] = &self.own;
        [self.shared.len().div_ceil(GROUP), low.len().div_ceil(STEP), high.len().div_ceil(STEP)]
    }
}

impl Parts {
    /// `None` when a word cannot hold the tree's leaves.
    fn add(&mut self, forest: &Forest, tree: &FlatTree) -> Option<()> {
        let first_leaf = u32::try_from(self.leaves.len()).ok()?;
        let mut tests = TreeTests { first_leaf, ..TreeTests::default() };
        tests.whole = self.add_node(forest, tree, 0, &mut tests)?;
        self.trees.push(tests);
        Some(())
    }

    fn join(self, n_features: usize, ends: Vec<usize>) -> Option<Factored> {
        let Self { mut leaves, shared_columns, own_columns, trees, .. } = self;
        leaves.extend([0.0; MAX_LEAVES]);
        let mut places: Vec<Place> =
            trees.iter().map(|tree| Place { first_leaf: tree.first_leaf, among_tests: 0 }).collect();
        let mut trees: Vec<(usize, TreeTests)> = trees.into_iter().enumerate().collect();
        trees.sort_by_key(|(_, tests)| tests.turns());
        let mut whole = Vec::with_capacity(trees.len());
        let mut shared = SharedTests { columns: shared_columns, ..SharedTests::default() };
        let mut own = OwnTests { columns: own_columns, ..OwnTests::default() };
        for (tree, tests) in trees {
            places[tree].among_tests = whole.len() as u32;
            whole.push(tests.whole & !tests.unreached);
            shared.add_tree(tests.shared)?;
            own.add_tree(tests.own)?;
        }
        Some(Factored { n_features, ends, leaves, places, whole, shared, own })
    }

    /// Adds what is at and below a node; returns its leaves.
    fn add_node(&mut self, forest: &Forest, tree: &FlatTree, place: usize, tests: &mut TreeTests) -> Option<u64> {
        let node = forest.nodes[tree.range()][place];
        if node.is_leaf(place) {
            let bit = 1_u64.checked_shl(u32::try_from(self.leaves.len()).ok()? - tests.first_leaf)?;
            self.leaves.push(forest.values[tree.start + place]);
            return Some(bit);
        }
        let passed = self.add_node(forest, tree, node.first_child(), tests)?;
        let failed = self.add_node(forest, tree, node.first_child() + 1, tests)?;
        let column = Column { feature: node.feature(), reading: node.reading() };
        match node.compared_with() {
            threshold if threshold.is_nan() => tests.unreached |= passed,
            threshold if usize::from(column.feature) < self.n_shared => {
                let column = place_of(column, &mut self.shared_columns);
                tests.shared.push(SharedTest { threshold, column, left: !passed });
            }
            threshold => {
                let column = place_of(column, &mut self.own_columns).try_into().ok()?;
                for (half, tests) in tests.own.iter_mut().enumerate() {
                    let left = !((passed >> (half * HALF)) as u32);
                    if left != u32::MAX {
                        tests.push(OwnTest { threshold, left, column });
                    }
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
            let Scratch { shared_readings, shared, lines, reached } = &scratch;
            let mut words = factored.whole.clone();
            factored.shared.rule_out_with(|groups| left(groups, shared_readings), &mut words);
            assert_eq!(words, *shared);
            let block = Block { own: &factored.own, shared, lines: lines.first_chunk().expect("all") };
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
