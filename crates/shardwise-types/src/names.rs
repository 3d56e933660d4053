//! Names of things (shards, functions, protocols …): shared text with a 64-bit key computed once.
//!
//! Comparing and ordering go by the text, so every ranking has a total order; look-ups go by the key.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Returns the 64-bit key of a name: FNV-1a over the bytes, then the finaliser of MurmurHash3 to spread the low bits.
///
/// It is part of the file formats (service tables are keyed by it), so it never changes.
pub const fn key_of(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    mix(hash)
}

/// Returns the key of an ordered pair of keys, for tables of function × shard and the like.
pub const fn combine_keys(first: u64, second: u64) -> u64 {
    mix(first.rotate_left(29) ^ second.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A number in [0, 1) from a key: its upper 53 bits, as many as a float holds. Evenly spread keys give uniform draws.
pub const fn unit_of(key: u64) -> f64 {
    (key >> 11) as f64 / (1_u64 << 53) as f64
}

const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

macro_rules! name_types {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name { text: Arc<str>, key: u64 }

        impl $name {
            /// Makes the name and computes its key.
            pub fn new(text: &str) -> Self {
                Self { text: Arc::from(text), key: key_of(text) }
            }
            /// The text of the name.
            pub fn as_str(&self) -> &str { &self.text }
            /// The 64-bit key of the text, see [`key_of`].
            pub fn key(&self) -> u64 { self.key }
        }
        impl From<&str> for $name { fn from(text: &str) -> Self { Self::new(text) } }
        impl From<String> for $name { fn from(text: String) -> Self { Self::new(&text) } }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool { self.key == other.key && self.text == other.text }
        }
        impl Eq for $name {}
        impl PartialOrd for $name { fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> { Some(self.cmp(other)) } }
        impl Ord for $name { fn cmp(&self, other: &Self) -> std::cmp::Ordering { self.text.cmp(&other.text) } }
        impl Hash for $name { fn hash<H: Hasher>(&self, state: &mut H) { self.text.hash(state); } }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.text } }
        impl fmt::Display for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.text) } }
        impl fmt::Debug for $name { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", self.text) } }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> { serializer.serialize_str(&self.text) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    )*};
}

name_types! {
    /// A shard, such as `shard-uniswap-primary`.
    ShardId;
    /// A pure function of the runtime.
    FunctionId;
    /// A router that places requests.
    RouterId;
    /// A DeFi protocol, such as `aave`; an unseen one is legal.
    Protocol;
    /// A kind of event, such as `PriceUpdated`; an unseen one is legal.
    EventType;
    /// A trading pair, such as `ETH/USDC`; an unseen one is legal.
    TradingPair;
    /// An exchange, such as `binance`; an unseen one is legal.
    Exchange;
    /// A region, such as `us-east`.
    Region;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_part_of_the_file_formats() {
        assert_eq!(key_of(""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(ShardId::new("shard-general").key(), key_of("shard-general"));
        assert_ne!(combine_keys(1, 2), combine_keys(2, 1));
    }

    #[test]
    fn names_order_by_text() {
        let mut names = [ShardId::new("shard-b"), ShardId::new("shard-a10"), ShardId::new("shard-a2")];
        names.sort();
        assert_eq!(names.map(|n| n.as_str().to_owned()), ["shard-a10", "shard-a2", "shard-b"]);
    }
}
