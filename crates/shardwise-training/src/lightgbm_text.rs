//! Converts the text in which LightGBM saves a model into a [`Forest`] that answers rows of `f32` bit for bit as LightGBM does.
//!
//! The answers are raw scores, as LightGBM's `predict(raw_score=true)`: a link such as the sigmoid is the caller's. Left out,
//! and refused: categorical splits, linear leaves, several outputs, averaged output (random forests), other text versions.

use std::collections::BTreeMap;
use std::str::FromStr;

use shardwise_models::forest::{Covers, CoversError, Forest, ForestError, Missing, TreeNode, ZERO_THRESHOLD};

const VERSION: &str = "v4";

/// Says why a text is not a model that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// The text is something else.
    #[error("this text is not a LightGBM model: its first line is not `tree`")]
    NotAModel,
    /// The text ends too early.
    #[error("the LightGBM model is cut off: there is no line `end of trees`")]
    CutOff,
    /// The trees are not those that the header announces.
    #[error("the LightGBM model has {found} instead of {expected}: trees are missing or out of order")]
    TreeOrder {
        /// What the place asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A line is not there.
    #[error("{section}: no line `{key}`")]
    NoSuchLine {
        /// The header or the tree.
        section: String,
        /// What stands before `=`.
        key: &'static str,
    },
    /// A line is there twice.
    #[error("{section}: more than one line `{key}`")]
    LineTwice {
        /// The header or the tree.
        section: String,
        /// What stands before `=`.
        key: String,
    },
    /// A value is not a number of the kind that its place asks for.
    #[error("{section}, `{key}`: `{text}` is not a number that can stand there")]
    BadNumber {
        /// The header or the tree.
        section: String,
        /// What stands before `=`.
        key: &'static str,
        /// What stands there instead of a number.
        text: String,
    },
    /// A line has too many or too few values.
    #[error("{section}, `{key}`: {found} values where {expected} were expected")]
    ListLength {
        /// The tree.
        section: String,
        /// What stands before `=`.
        key: &'static str,
        /// Values that the number of leaves asks for.
        expected: usize,
        /// Values that are there.
        found: usize,
    },
    /// The model was trained on other features.
    #[error("the LightGBM model reads {found} features, not {expected}: train it on the features of this version")]
    FeatureCount {
        /// Features that a row has.
        expected: usize,
        /// Features that the model reads.
        found: usize,
    },
    /// The model needs something that is not served.
    #[error("{section}: {what} cannot be served: train without")]
    Unsupported {
        /// The header or the tree.
        section: String,
        /// What the model needs.
        what: String,
    },
    /// The trees are not a forest. Node numbers count the splits first, then the leaves.
    #[error("the trees of the LightGBM model cannot be served")]
    Forest(#[from] ForestError),
    /// The counts of rows are not those of the trees.
    #[error("the LightGBM model does not say how many rows reached each node: its answers cannot be explained")]
    Covers(#[from] CoversError),
}

/// Reads a model of one output as `Booster::save_string` of LightGBM 4 writes it, for rows of `n_features` values.
///
/// # Errors
/// Refuses whatever cannot be served with LightGBM's own answers, and says which line of which tree it is.
pub fn forest_from_lightgbm_text(text: &str, n_features: usize) -> Result<Forest, ConversionError> {
    let trees: Vec<_> = read_sections(text, n_features)?.iter().map(read_tree).collect::<Result<_, _>>()?;
    Ok(Forest::new(n_features, &trees)?)
}

/// As [`forest_from_lightgbm_text`], with the training rows that reached each node: what
/// [`Forest::contributions`] needs to say of each feature what LightGBM's `predict(pred_contrib=true)` says.
///
/// # Errors
/// As [`forest_from_lightgbm_text`], and when the counts of rows are missing or do not add up.
pub fn covered_forest_from_lightgbm_text(text: &str, n_features: usize) -> Result<(Forest, Covers), ConversionError> {
    let sections = read_sections(text, n_features)?;
    let trees: Vec<_> = sections.iter().map(read_tree).collect::<Result<_, _>>()?;
    let rows: Vec<_> = sections.iter().map(read_covers).collect::<Result<_, _>>()?;
    let forest = Forest::new(n_features, &trees)?;
    let covers = Covers::new(&forest, &trees, &rows)?;
    Ok((forest, covers))
}

/// The lines of each tree, in order.
fn read_sections(text: &str, n_features: usize) -> Result<Vec<Section<'_>>, ConversionError> {
    if text.lines().next() != Some("tree") {
        return Err(ConversionError::NotAModel);
    }
    let (model, _importances_and_parameters) = text.split_once("\nend of trees").ok_or(ConversionError::CutOff)?;
    let mut sections = model.split("\nTree=");
    let header = Section::parse("header".to_owned(), sections.next().unwrap_or_default())?;
    check_header(&header, n_features)?;
    let trees: Vec<_> =
        sections.enumerate().map(|(index, section)| read_section(index, section)).collect::<Result<_, _>>()?;
    check_tree_count(&header, trees.len())?;
    Ok(trees)
}

/// Lines `key=value` under a name for messages.
struct Section<'a> {
    name: String,
    lines: BTreeMap<&'a str, &'a str>,
}

impl<'a> Section<'a> {
    fn parse(name: String, text: &'a str) -> Result<Self, ConversionError> {
        let mut lines = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            if lines.insert(key, value).is_some() {
                return Err(ConversionError::LineTwice { section: name, key: key.to_owned() });
            }
        }
        Ok(Self { name, lines })
    }

    fn text(&self, key: &'static str) -> Result<&'a str, ConversionError> {
        let no_such_line = || ConversionError::NoSuchLine { section: self.name.clone(), key };
        self.lines.get(key).copied().ok_or_else(no_such_line)
    }

    fn number<T: FromStr>(&self, key: &'static str) -> Result<T, ConversionError> {
        let text = self.text(key)?;
        text.parse().map_err(|_| self.bad_number(key, text))
    }

    fn numbers<T: FromStr>(&self, key: &'static str, expected: usize) -> Result<Vec<T>, ConversionError> {
        let words = self.text(key)?.split_ascii_whitespace();
        let numbers: Vec<T> =
            words.map(|word| word.parse().map_err(|_| self.bad_number(key, word))).collect::<Result<_, _>>()?;
        if numbers.len() != expected {
            let section = self.name.clone();
            return Err(ConversionError::ListLength { section, key, expected, found: numbers.len() });
        }
        Ok(numbers)
    }

    fn bad_number(&self, key: &'static str, text: &str) -> ConversionError {
        ConversionError::BadNumber { section: self.name.clone(), key, text: text.to_owned() }
    }

    fn unsupported(&self, what: impl Into<String>) -> ConversionError {
        ConversionError::Unsupported { section: self.name.clone(), what: what.into() }
    }
}

fn check_header(header: &Section<'_>, n_features: usize) -> Result<(), ConversionError> {
    let version = header.text("version")?;
    if version != VERSION {
        return Err(header.unsupported(format!("text version `{version}` instead of `{VERSION}`")));
    }
    for key in ["num_class", "num_tree_per_iteration"] {
        if header.number::<u32>(key)? != 1 {
            return Err(header.unsupported(format!("more than one output (`{key}`)")));
        }
    }
    if header.lines.contains_key("average_output") {
        return Err(header.unsupported("averaged output (`boosting=rf`)"));
    }
    let last_feature: u32 = header.number("max_feature_idx")?;
    let found = last_feature as usize + 1;
    if found == n_features { Ok(()) } else { Err(ConversionError::FeatureCount { expected: n_features, found }) }
}

/// Compares the number of trees with the header's list of their sizes, where there is one, as LightGBM itself does without.
fn check_tree_count(header: &Section<'_>, found: usize) -> Result<(), ConversionError> {
    let Some(sizes) = header.lines.get("tree_sizes") else { return Ok(()) };
    let expected = sizes.split_ascii_whitespace().count();
    if found == expected {
        return Ok(());
    }
    Err(ConversionError::TreeOrder { expected: format!("{expected} trees"), found: format!("{found} trees") })
}

fn read_section(index: usize, text: &str) -> Result<Section<'_>, ConversionError> {
    let (number, lines) = text.split_once('\n').unwrap_or((text, ""));
    let number = number.trim_end();
    if number != index.to_string() {
        return Err(ConversionError::TreeOrder {
            expected: format!("tree {index}"),
            found: format!("tree `{number}`"),
        });
    }
    Section::parse(format!("tree {index}"), lines)
}

/// The nodes of a tree: the splits, then the leaves.
fn read_tree(tree: &Section<'_>) -> Result<Vec<TreeNode>, ConversionError> {
    if tree.number::<u32>("num_cat")? != 0 {
        return Err(tree.unsupported("a categorical split"));
    }
    if tree.lines.contains_key("is_linear") && tree.number::<u32>("is_linear")? != 0 {
        return Err(tree.unsupported("a linear leaf"));
    }
    let n_leaves: usize = tree.number("num_leaves")?;
    let leaves = tree.numbers("leaf_value", n_leaves)?;
    let mut nodes = read_splits(tree, n_leaves.saturating_sub(1))?;
    nodes.extend(leaves.into_iter().map(TreeNode::Leaf));
    Ok(nodes)
}

/// Training rows that reached each node, in the order of [`read_tree`].
fn read_covers(tree: &Section<'_>) -> Result<Vec<u32>, ConversionError> {
    let n_leaves: usize = tree.number("num_leaves")?;
    if n_leaves == 1 {
        // LightGBM counts no rows where nothing splits them; any number gives the same mean.
        return Ok(vec![1]);
    }
    let mut rows = tree.numbers("internal_count", n_leaves.saturating_sub(1))?;
    rows.extend(tree.numbers::<u32>("leaf_count", n_leaves)?);
    Ok(rows)
}

fn read_splits(tree: &Section<'_>, n_splits: usize) -> Result<Vec<TreeNode>, ConversionError> {
    let features = tree.numbers::<u32>("split_feature", n_splits)?;
    let thresholds = tree.numbers::<f64>("threshold", n_splits)?;
    let decisions = tree.numbers::<u8>("decision_type", n_splits)?;
    let left = tree.numbers::<i32>("left_child", n_splits)?;
    let right = tree.numbers::<i32>("right_child", n_splits)?;
    let read_split = |node: usize| {
        Ok(TreeNode::Split {
            feature: features[node],
            threshold: served_threshold(thresholds[node]),
            missing: missing_rule(decisions[node], thresholds[node])
                .ok_or_else(|| tree.unsupported(format!("decision type {}", decisions[node])))?,
            left: child_node(left[node], n_splits).ok_or_else(|| bad_child(tree, "left_child", left[node]))?,
            right: child_node(right[node], n_splits).ok_or_else(|| bad_child(tree, "right_child", right[node]))?,
        })
    };
    (0..n_splits).map(read_split).collect()
}

fn bad_child(tree: &Section<'_>, key: &'static str, child: i32) -> ConversionError {
    tree.bad_number(key, &child.to_string())
}

/// Leaves are counted down from -1 in the text; here they come after the splits.
fn child_node(child: i32, n_splits: usize) -> Option<u32> {
    match usize::try_from(child) {
        Ok(split) if split < n_splits => u32::try_from(split).ok(),
        Ok(_) => None,
        Err(_) => u32::try_from(n_splits).ok()?.checked_add(!child as u32),
    }
}

/// Reads the bits of a decision type: 1 categorical, 2 missing values go left, 4 zero is missing, 8 NaN is missing.
fn missing_rule(decision_type: u8, threshold: f64) -> Option<Missing> {
    let zero_goes_left = threshold >= 0.0;
    match decision_type {
        // Nothing is missing: NaN is read as zero.
        0 | 2 if zero_goes_left => Some(Missing::NanLeft),
        0 | 2 => Some(Missing::NanRight),
        4 => Some(Missing::ZeroRight),
        6 => Some(Missing::ZeroLeft),
        8 => Some(Missing::NanRight),
        10 => Some(Missing::NanLeft),
        _ => None,
    }
}

/// Finds the threshold that parts all `f32` as LightGBM parts them, which reads values within [`ZERO_THRESHOLD`] as zero.
fn served_threshold(threshold: f64) -> f32 {
    let zero = f64::from(ZERO_THRESHOLD);
    if (0.0..zero).contains(&threshold) {
        ZERO_THRESHOLD
    } else if (-zero..0.0).contains(&threshold) {
        (-ZERO_THRESHOLD).next_down()
    } else {
        rounded_down(threshold)
    }
}

/// Finds the largest `f32` that is not above `x`: an `f32` is at most the one if and only if it is at most the other.
fn rounded_down(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) > x { nearest.next_down() } else { nearest }
}

#[cfg(test)]
mod tests {
    use lightgbm3::{Booster, Dataset};
    use serde_json::{Value, json};

    use super::*;

    const N_FEATURES: usize = 4;
    const DECISION_TYPES: [u8; 6] = [0, 2, 4, 6, 8, 10];
    const THRESHOLDS: [&str; 13] = [
        "inf",
        "-inf",
        "1e300",
        "-1e300",
        "0",
        "-0",
        "1e-36",
        "-1e-36",
        "1e-50",
        "-1e-50",
        "1.00000001800250948e-35",
        "-1.00000001800250948e-35",
        "0.1",
    ];

    /// SplitMix64: the same data for ever.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % sides as u64) as usize
        }

        fn unit(&mut self) -> f64 {
            self.roll(1 << 30) as f64 / f64::from(1 << 30)
        }

        /// One row: plain, with NaN, mostly zero and both.
        fn row(&mut self) -> [f64; N_FEATURES] {
            let zero_or = |is_zero: bool, x: f64| if is_zero { 0.0 } else { x };
            let nan_or = |is_nan: bool, x: f64| if is_nan { f64::NAN } else { x };
            let [a, b, c, d] = std::array::from_fn(|_| self.unit() * 2.0 - 1.0);
            let [is_nan, is_zero] = std::array::from_fn(|_| self.roll(3) == 0);
            [a, nan_or(is_nan, b), zero_or(is_zero, c), nan_or(self.roll(4) == 0, zero_or(self.roll(2) == 0, d))]
        }
    }

    fn label(row: &[f64; N_FEATURES]) -> f32 {
        let [a, b, c, d] = row;
        let known = |x: &f64, otherwise: f64| if x.is_nan() { otherwise } else { *x };
        (a * 3.0 + known(b, 2.0) * c.abs() + known(d, -1.5) * a + 10.0) as f32
    }

    /// Trains on rows made by `dice`, with `parameters` in place of or beside the usual ones, and returns the model's text.
    fn trained_text(dice: &mut Dice, parameters: &Value) -> String {
        let rows: Vec<_> = (0..800).map(|_| dice.row()).collect();
        let labels: Vec<_> = rows.iter().map(label).collect();
        let dataset = Dataset::from_slice(rows.as_flattened(), &labels, N_FEATURES as i32, true).expect("a data set");
        let mut all = json!({"objective": "regression", "num_iterations": 12, "num_leaves": 15, "min_data_in_leaf": 5,
            "num_threads": 1, "verbosity": -1});
        let parameters = parameters.as_object().expect("an object").clone();
        all.as_object_mut().expect("an object").extend(parameters);
        Booster::train(dataset, &all).expect("a model").save_string().expect("its text")
    }

    fn small_text() -> String {
        trained_text(&mut Dice(1), &json!({"num_iterations": 2, "num_leaves": 4}))
    }

    /// Puts what `edit` makes of each word into all lines `key=`, and takes out the sizes, which no longer hold.
    fn edited(text: &str, key: &str, mut edit: impl FnMut(&str) -> String) -> String {
        let mut edit_line = |line: &str| match line.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            Some(words) => format!("{key}={}\n", words.split(' ').map(&mut edit).collect::<Vec<_>>().join(" ")),
            None => format!("{line}\n"),
        };
        text.lines().filter(|line| !line.starts_with("tree_sizes=")).map(&mut edit_line).collect()
    }

    /// Values at, just below and just above each threshold of the text, and all others that have a rule of their own.
    fn telling_values(text: &str) -> Vec<f32> {
        let thresholds = text.lines().filter_map(|line| line.strip_prefix("threshold="));
        let thresholds =
            thresholds.flat_map(str::split_ascii_whitespace).map(|word| word.parse::<f64>().expect("a number"));
        let special = [f32::INFINITY, f32::MAX, 0.0, 1e-36, 1e-45, ZERO_THRESHOLD, 1.0];
        let special = special.into_iter().flat_map(|x| [x, -x]);
        let around = |x: f32| [x.next_down(), x, x.next_up()];
        thresholds.map(|x| x as f32).chain(special).flat_map(around).chain([f32::NAN]).collect()
    }

    fn telling_rows(text: &str, dice: &mut Dice) -> Vec<[f32; N_FEATURES]> {
        let values = telling_values(text);
        let mut any_row = || std::array::from_fn(|_| values[dice.roll(values.len())]);
        (0..5000).map(|_| any_row()).collect()
    }

    fn assert_same_answers(text: &str, dice: &mut Dice) {
        let forest = forest_from_lightgbm_text(text, N_FEATURES).expect("a forest");
        let rows = telling_rows(text, dice);
        let wide: Vec<f64> = rows.as_flattened().iter().copied().map(f64::from).collect();
        let booster = Booster::from_string(text).expect("a text that LightGBM reads");
        let expected = booster.raw_scores(&wide, N_FEATURES as i32, true).expect("raw scores");
        let mut answers = vec![f64::NAN; rows.len()];
        forest.predict_rows(rows.as_flattened(), N_FEATURES, &mut answers);
        for ((row, expected), answer) in rows.iter().zip(expected).zip(answers) {
            assert_eq!(forest.predict(row).to_bits(), expected.to_bits(), "{row:?}");
            assert_eq!(answer.to_bits(), expected.to_bits(), "{row:?}");
        }
    }

    #[test]
    fn forest_answers_as_the_trained_model_does() {
        let mut dice = Dice(2);
        for parameters in [
            json!({}),
            json!({"num_iterations": 60, "num_leaves": 63, "min_data_in_leaf": 1}),
            json!({"objective": "quantile", "alpha": 0.9}),
            json!({"boosting": "dart", "drop_rate": 0.5}),
            json!({"num_leaves": 2}),
            json!({"boost_from_average": false}),
        ] {
            let text = trained_text(&mut dice, &parameters);
            assert!(text.contains("decision_type=") && text.contains("threshold="));
            assert_same_answers(&text, &mut dice);
        }
    }

    #[test]
    fn forest_answers_as_lightgbm_under_each_missing_rule() {
        let mut dice = Dice(3);
        let text = trained_text(&mut dice, &json!({}));
        for decision_type in DECISION_TYPES {
            assert_same_answers(&edited(&text, "decision_type", |_| decision_type.to_string()), &mut dice);
        }
    }

    #[test]
    fn forest_answers_as_lightgbm_where_rules_and_thresholds_are_at_odds() {
        let mut dice = Dice(4);
        let text = trained_text(&mut dice, &json!({"num_leaves": 31}));
        for _ in 0..10 {
            let text = edited(&text, "decision_type", |_| DECISION_TYPES[dice.roll(6)].to_string());
            let text = edited(&text, "threshold", |word| match dice.roll(2) {
                0 => THRESHOLDS[dice.roll(THRESHOLDS.len())].to_owned(),
                _ => word.to_owned(),
            });
            assert_same_answers(&text, &mut dice);
        }
    }

    #[test]
    fn trees_without_a_split_keep_their_value() {
        let mut dice = Dice(5);
        let text = trained_text(&mut dice, &json!({"min_data_in_leaf": 500}));
        assert!(text.contains("num_leaves=1\n"));
        assert_same_answers(&text, &mut dice);
        let forest = forest_from_lightgbm_text(&text, N_FEATURES).expect("a forest");
        assert_eq!(forest.n_nodes(), forest.n_trees());
        assert!(forest.predict(&[0.0; N_FEATURES]) > 5.0, "the mean of the labels is in the first tree");
    }

    #[test]
    fn thresholds_are_rounded_down() {
        for (threshold, expected) in [
            (0.1, 0.1_f32.next_down()),
            (-0.1, -0.1),
            (0.5, 0.5),
            (1e300, f32::MAX),
            (-1e300, f32::NEG_INFINITY),
            (f64::INFINITY, f32::INFINITY),
            (0.0, ZERO_THRESHOLD),
            (-0.0, ZERO_THRESHOLD),
            (-1e-50, (-ZERO_THRESHOLD).next_down()),
            (-f64::from(ZERO_THRESHOLD), (-ZERO_THRESHOLD).next_down()),
        ] {
            assert_eq!(served_threshold(threshold).to_bits(), expected.to_bits(), "{threshold:e}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let text = small_text();
        for (line, other, refusal) in [
            ("tree\n", "forest\n", "this text is not a LightGBM model: its first line is not `tree`"),
            ("end of trees", "", "the LightGBM model is cut off: there is no line `end of trees`"),
            ("version=v4", "version=v9", "header: text version `v9` instead of `v4` cannot be served: train without"),
            (
                "num_class=1",
                "num_class=3",
                "header: more than one output (`num_class`) cannot be served: train without",
            ),
            (
                "\nfeature_names",
                "\naverage_output\nfeature_names",
                "header: averaged output (`boosting=rf`) cannot be served: train without",
            ),
            (
                "max_feature_idx=3",
                "max_feature_idx=9",
                "the LightGBM model reads 10 features, not 4: train it on the features of this version",
            ),
            ("num_cat=0", "num_cat=1", "tree 0: a categorical split cannot be served: train without"),
            ("is_linear=0", "is_linear=1", "tree 0: a linear leaf cannot be served: train without"),
            ("num_leaves=4", "num_leaves=5", "tree 0, `leaf_value`: 4 values where 5 were expected"),
            ("num_leaves=4", "num_leaves=0", "tree 0, `leaf_value`: 4 values where 0 were expected"),
            ("num_leaves=4", "num_leaves=-1", "tree 0, `num_leaves`: `-1` is not a number that can stand there"),
            ("decision_type=", "decision_type=x", "tree 0, `decision_type`: `x"),
            ("left_child=", "left_child=3 ", "tree 0, `left_child`: 4 values where 3 were expected"),
            ("leaf_value=", "values=", "tree 0: no line `leaf_value`"),
            ("shrinkage=", "num_cat=0\nshrinkage=", "tree 0: more than one line `num_cat`"),
            ("Tree=1", "Tree=7", "the LightGBM model has tree `7` instead of tree 1"),
            ("tree_sizes=", "tree_sizes=1 ", "the LightGBM model has 2 trees instead of 3 trees"),
        ] {
            assert!(text.contains(line), "no `{line}` in {text}");
            let refused = forest_from_lightgbm_text(&text.replacen(line, other, 1), N_FEATURES).expect_err(refusal);
            assert!(refused.to_string().starts_with(refusal), "{refused}");
        }
    }

    #[test]
    fn categorical_and_unknown_decisions_are_refused() {
        for decision_type in (0..=255).filter(|decision_type| !DECISION_TYPES.contains(decision_type)) {
            let text = edited(&small_text(), "decision_type", |_| decision_type.to_string());
            let what = format!("decision type {decision_type}");
            let expected = ConversionError::Unsupported { section: "tree 0".to_owned(), what };
            assert_eq!(forest_from_lightgbm_text(&text, N_FEATURES), Err(expected));
        }
    }

    #[test]
    fn children_out_of_place_are_refused() {
        for child in [0, 3, 1000, -5, i32::MIN, i32::MAX] {
            let text = edited(&small_text(), "left_child", |_| child.to_string());
            assert!(forest_from_lightgbm_text(&text, N_FEATURES).is_err(), "{child}");
        }
    }

    #[test]
    fn text_without_a_line_or_cut_off_never_panics() {
        let text = small_text();
        let end = text.find("end of trees").expect("an end");
        for length in 0..end {
            assert!(forest_from_lightgbm_text(&text[..length], N_FEATURES).is_err());
        }
        let whole = forest_from_lightgbm_text(&text, N_FEATURES).expect("a forest");
        let lines: Vec<_> = text[..end].lines().collect();
        for dropped in 0..lines.len() {
            let kept = lines.iter().enumerate().filter(|(index, _)| *index != dropped).map(|(_, line)| *line);
            let text = kept.chain(["end of trees\n"]).collect::<Vec<_>>().join("\n");
            let converted = forest_from_lightgbm_text(&text, N_FEATURES);
            assert!(converted.is_err() || converted == Ok(whole.clone()), "without `{}`", lines[dropped]);
        }
    }
}
