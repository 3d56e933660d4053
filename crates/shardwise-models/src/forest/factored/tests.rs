use super::*;
use crate::forest::Forest;
use crate::forest::tests::{Dice, MISSING};

const N_FEATURES: usize = 20;
/// Miri takes a thousand times as long.
const SEEDS: u64 = if cfg!(miri) { 1 } else { 40 };
const DECISIONS: usize = if cfg!(miri) { 2 } else { 200 };
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
    for seed in 0..SEEDS {
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
    for _ in 0..DECISIONS {
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
    factored(&forests[..1]).predict_rows(&[0.0; 2 * N_FEATURES], N_FEATURES, &mut Scratch::default(), &mut [0.0; 3]);
}
