//! Forests for rows that share their first values, as the candidates of one decision share what is known of the request.
//!
//! Each leaf of a tree is a bit of one word, in the order of the leaves. A test that fails rules out the leaves behind its
//! first child, whatever the other tests say, so tests may be taken in any order; the lowest bit left is the leaf that a walk
//! would have reached (Lucchese et al., "QuickScorer", SIGIR 2015; several rows at a time: "Exploiting CPU SIMD extensions to
//! speed-up document scoring with tree ensembles", SIGIR 2016). Here the tests on shared values are taken once for all rows,
//! several tests at a time; the others for several rows at a time. Both go tree by tree, with the words in registers.
//! Measured and left out: sorting the tests of one reading, to end at the first that passes (what early ends save is lost to
//! loads and stores of words), dropping the tests that shared ones have made moot (four in five stay), and trees with as many
//! tests side by side, so that the processor foresees where loops end (it does anyway).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod build;
#[cfg(test)]
mod tests;

use std::array;
use std::ops::Range;

use super::MAX_FEATURES;
use super::layout::reading;

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

/// Several forests that answer the same rows in one pass, bit for bit as [`Forest::predict`](super::Forest::predict) does.
#[derive(Debug, Clone, PartialEq)]
pub struct Factored {
    n_features: usize,
    /// Where the trees of each forest end.
    ends: Vec<usize>,
    /// The values of all leaves, those of one tree side by side, then [`MAX_LEAVES`] that stand for none.
    leaves: Vec<f64>,
    /// Where those of each tree begin.
    first_leaves: Vec<u32>,
    /// All leaves of each tree that some row can reach.
    whole: Vec<u64>,
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

/// Some tests of one half. Those that fill it up leave all leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    thresholds: [f32; STEP],
    left: [u32; STEP],
    columns: [u8; STEP],
}

impl Step {
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
        for (first_leaf, reached) in self.first_leaves[trees.clone()].iter().zip(&reached[trees]) {
            let leaves = self.leaves[*first_leaf as usize..].first_chunk();
            let leaves: &[f64; MAX_LEAVES] = leaves.expect("enough that stand for none follow");
            for (sum, leaf) in sums.iter_mut().zip(reached) {
                *sum += leaves[usize::from(*leaf) % MAX_LEAVES];
            }
        }
        sums
    }
}

impl SharedTests {
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

const _: () = assert!(MAX_FEATURES * 4 <= 1 << 16, "a feature and its reading fit a test's word");
