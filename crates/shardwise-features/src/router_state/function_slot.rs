//! The fields of a function's slot, and of the slot of a function on a shard.

pub(super) const LN_MS: usize = 0;
pub(super) const SAMPLES: usize = 1;
pub(super) const RESIDUAL: usize = 2;
pub(super) const RESIDUAL_SAMPLES: usize = 3;
pub(super) const COLD_MS: usize = 4;
pub(super) const COLD_SAMPLES: usize = 5;
pub(super) const LAST_DISPATCH: usize = 6;
pub(super) const FIELDS: usize = 7;

/// A function on a shard.
pub(super) mod pair {
    /// When this router last sent it there, in ns + 1 (0 is never).
    pub(in super::super) const LAST_DISPATCH: usize = 0;
    /// How many requests this router had sent to the shard by then.
    pub(in super::super) const DISPATCHES: usize = 1;
    pub(in super::super) const FIELDS: usize = 2;
}
