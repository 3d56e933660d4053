//! A forest read straight from its bytes, as the documentation of `shardwise_models::forest` lays them out, and walked node by
//! node: slow, plain, and sharing no code with what it is held against.

/// Values no further from zero than this count as zero.
const ZERO: f32 = 1e-35;

/// A forest that [`shardwise_models::forest::Forest::from_bytes`] took.
pub struct Book<'a> {
    /// Values that a row must have.
    pub n_features: usize,
    trees: Vec<&'a [[u8; 12]]>,
}

impl<'a> Book<'a> {
    /// Reads bytes that were accepted.
    ///
    /// # Panics
    /// If they are shorter than they say.
    pub fn new(bytes: &'a [u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        let (n_features, n_trees) = (u32_at(12), u32_at(16));
        let (mut nodes, _) = bytes[24 + 4 * n_trees..bytes.len() - 32].as_chunks::<12>();
        let mut trees = Vec::with_capacity(n_trees);
        for tree in 0..n_trees {
            let (taken, rest) = nodes.split_at(u32_at(24 + 4 * tree));
            trees.push(taken);
            nodes = rest;
        }
        assert!(nodes.is_empty(), "nodes of no tree");
        Self { n_features, trees }
    }

    /// The sum of the leaves that a row reaches.
    pub fn answer(&self, row: &[f32]) -> f64 {
        self.trees.iter().fold(0.0, |sum, tree| sum + leaf(tree, row))
    }

    /// Some thresholds, for rows that hit them.
    pub fn thresholds(&self) -> impl Iterator<Item = f32> + '_ {
        let splits = self.trees.iter().flat_map(|tree| tree.iter()).filter(|node| node[0] != 0);
        splits.map(|node| f32::from_le_bytes([node[4], node[5], node[6], node[7]]))
    }
}

fn leaf(tree: &[[u8; 12]], row: &[f32]) -> f64 {
    let mut at = 0;
    loop {
        let [kind, _, f0, f1, value @ ..] = tree[at];
        if kind == 0 {
            return f64::from_le_bytes(value);
        }
        let threshold = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        let x = row[usize::from(u16::from_le_bytes([f0, f1]))];
        let is_missing = x.is_nan() || (kind >= 3 && (-ZERO..=ZERO).contains(&x));
        let missing_goes_left = kind % 2 == 0;
        let goes_left = if is_missing { missing_goes_left } else { x <= threshold };
        let splits_before = tree[..at].iter().filter(|node| node[0] != 0).count();
        at = 2 * splits_before + 1 + usize::from(goes_left == missing_goes_left);
    }
}
