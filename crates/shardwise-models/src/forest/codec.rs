//! The bytes of a forest, as the parent's documentation lays them out; the check of the trees is not here but in `layout`.

use super::layout::{FlatNode, FlatTree, check_limit};
use super::{Forest, ForestError, MAX_NODES, MAX_TREES, Missing, TreeNode};

const MAGIC: &[u8; 8] = b"SWFOREST";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const TREE_BYTES: usize = 4;
const NODE_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = blake3::OUT_LEN;

impl Forest {
    /// Writes the forest; equal forests give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let n_bytes = HEADER_BYTES + TREE_BYTES * self.trees.len() + NODE_BYTES * self.nodes.len() + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(n_bytes);
        bytes.extend(MAGIC);
        // The limits on features, trees and nodes keep all counts within 32 bits.
        for count in [VERSION as usize, self.n_features, self.trees.len(), self.nodes.len()] {
            bytes.extend((count as u32).to_le_bytes());
        }
        for tree in &self.trees {
            bytes.extend((tree.n_nodes as u32).to_le_bytes());
        }
        for tree in &self.trees {
            self.push_nodes(tree, &mut bytes);
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        bytes
    }

    fn push_nodes(&self, tree: &FlatTree, bytes: &mut Vec<u8>) {
        let nodes = &self.nodes[tree.range()];
        let values = &self.values[tree.range()];
        for (index, (node, value)) in nodes.iter().zip(values).enumerate() {
            if node.is_leaf(index) { push_leaf(*value, bytes) } else { push_split(*node, bytes) }
        }
    }

    /// Reads what [`Forest::to_bytes`] wrote, and checks it as [`Forest::new`] does.
    ///
    /// # Errors
    /// Refuses every other byte string: cut off, longer, changed, of another version, or not a forest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ForestError> {
        let mut body = checked_body(bytes)?;
        let [n_features, n_trees, n_nodes] = [(); 3].map(|()| body.take_u32() as usize);
        let sizes: Vec<u32> = (0..n_trees).map(|_| body.take_u32()).collect();
        let found = sizes.iter().copied().map(u64::from).sum();
        if found != n_nodes as u64 {
            return Err(ForestError::NodeCount { expected: n_nodes, found });
        }
        let trees: Result<Vec<_>, _> =
            sizes.iter().enumerate().map(|(tree, n_nodes)| read_tree(tree, *n_nodes, &mut body)).collect();
        Self::new(n_features, &trees?)
    }
}

fn push_leaf(value: f64, bytes: &mut Vec<u8>) {
    bytes.extend([0; 4]);
    bytes.extend(value.to_le_bytes());
}

fn push_split(node: FlatNode, bytes: &mut Vec<u8>) {
    let kind = match node.missing() {
        Missing::NanRight => 1,
        Missing::NanLeft => 2,
        Missing::ZeroRight => 3,
        Missing::ZeroLeft => 4,
    };
    bytes.extend([kind, 0]);
    bytes.extend(node.feature().to_le_bytes());
    bytes.extend(node.threshold().to_le_bytes());
    bytes.extend([0; 4]);
}

/// Checks all that can be said without looking at a tree, and returns what lies between version and checksum.
fn checked_body(bytes: &[u8]) -> Result<Reader<'_>, ForestError> {
    if !bytes.starts_with(MAGIC) {
        return Err(ForestError::NotAForest);
    }
    let found = bytes.len() as u64;
    let too_short = ForestError::Length { expected: (HEADER_BYTES + CHECKSUM_BYTES) as u64, found };
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>().filter(|(c, _)| c.len() >= HEADER_BYTES)
    else {
        return Err(too_short);
    };
    let mut body = Reader { bytes: &content[MAGIC.len()..] };
    let version = body.take_u32();
    if version != VERSION {
        return Err(ForestError::Version { found: version });
    }
    let expected = expected_bytes(Reader { bytes: &body.bytes[4..] })?;
    if found != expected {
        return Err(ForestError::Length { expected, found });
    }
    if blake3::hash(content) != *checksum {
        return Err(ForestError::Checksum);
    }
    Ok(body)
}

/// Computes from the header's counts how many bytes there must be, before anything is allocated by their word.
fn expected_bytes(mut counts: Reader<'_>) -> Result<u64, ForestError> {
    let [n_trees, n_nodes] = [(); 2].map(|()| counts.take_u32() as usize);
    check_limit("trees", n_trees, MAX_TREES)?;
    check_limit("nodes", n_nodes, MAX_NODES)?;
    // Within the limits just checked, nothing overflows.
    Ok((HEADER_BYTES + TREE_BYTES * n_trees + NODE_BYTES * n_nodes + CHECKSUM_BYTES) as u64)
}

fn read_tree(tree: usize, n_nodes: u32, body: &mut Reader<'_>) -> Result<Vec<TreeNode>, ForestError> {
    let mut n_splits = 0;
    let mut nodes = Vec::with_capacity(n_nodes as usize);
    for node in 0..n_nodes as usize {
        let read = read_node(body.take::<NODE_BYTES>(), n_splits).ok_or(ForestError::NodeBytes { tree, node })?;
        n_splits += u32::from(matches!(read, TreeNode::Split { .. }));
        nodes.push(read);
    }
    Ok(nodes)
}

fn read_node([kind, zero, f0, f1, v @ ..]: [u8; NODE_BYTES], n_splits: u32) -> Option<TreeNode> {
    let feature = u16::from_le_bytes([f0, f1]);
    let [t0, t1, t2, t3, padding @ ..] = v;
    let missing = match kind {
        0 => return (zero == 0 && feature == 0).then(|| TreeNode::Leaf(f64::from_le_bytes(v))),
        1 => Missing::NanRight,
        2 => Missing::NanLeft,
        3 => Missing::ZeroRight,
        4 => Missing::ZeroLeft,
        _ => return None,
    };
    let threshold = f32::from_le_bytes([t0, t1, t2, t3]);
    let is_negative_zero = threshold == 0.0 && threshold.is_sign_negative();
    let [first, second] = [2 * n_splits + 1, 2 * n_splits + 2];
    let [left, right] = if missing.goes_left() { [second, first] } else { [first, second] };
    (zero == 0 && padding == [0; 4] && !is_negative_zero).then(|| TreeNode::Split {
        feature: feature.into(),
        threshold,
        missing,
        left,
        right,
    })
}

/// Takes little-endian numbers off the front of bytes whose length was checked before.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.bytes.split_first_chunk().expect("the length was checked against the counts");
        self.bytes = rest;
        *taken
    }

    fn take_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}
