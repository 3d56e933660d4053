//! Instants in atomic fields, with zero bits for "never".

use shardwise_types::Timestamp;

/// An instant as a field: its nanoseconds, with zero bits kept for "never".
pub(super) fn stamp(instant: Timestamp) -> u64 {
    (instant.nanos().cast_unsigned()).wrapping_add(1).max(1)
}

/// The instant of a field, if there is one.
pub(super) fn instant(stamp: u64) -> Option<Timestamp> {
    (stamp != 0).then(|| Timestamp::from_nanos(stamp.wrapping_sub(1).cast_signed()))
}
