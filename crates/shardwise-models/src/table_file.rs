//! The bytes of a service table: the same table always gives the same bytes, whatever the order of its maps.
//!
//! Layout: magic `SWSTABLE`, format version as `u32` (little-endian), the table in postcard with its maps ordered by key,
//! BLAKE3 of all that precedes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_features::ServiceTable;

const MAGIC: &[u8; 8] = b"SWSTABLE";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 12;
const TRAILER_BYTES: usize = 32;

/// Says why bytes are not a service table, or a table not bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableFileError {
    /// The bytes are something else.
    #[error("these bytes are not a service table: they do not begin with `SWSTABLE`")]
    NotATable,
    /// The bytes are of another format version.
    #[error("service table format version {found} is not the version {VERSION} that is read here: train again")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The bytes were changed after they were written.
    #[error("the service table's checksum does not match: the file is damaged, fetch it again")]
    Checksum,
    /// The content is none that a writer makes.
    #[error("the service table cannot be decoded: it was written by another version, train again")]
    Content,
    /// A number in the table is NaN or infinite.
    #[error("the service table holds a number that is not finite: it cannot be served")]
    NotFinite,
}

/// A value and the number of samples behind it.
type Effect = (f32, f32);

/// [`ServiceTable`] field by field, but with ordered maps. In postcard both are the same: a map is its length and its pairs.
#[derive(Serialize, Deserialize)]
struct OrderedTable {
    mean_ln_ms: f32,
    exponent: f32,
    residual_variance: f32,
    samples: f64,
    global_cold_ms: f32,
    functions: BTreeMap<u64, Effect>,
    shards: BTreeMap<u64, Effect>,
    protocol_shards: BTreeMap<u64, Effect>,
    pairs: BTreeMap<u64, Effect>,
    categories: BTreeMap<u64, Effect>,
    cold_ms: BTreeMap<u64, Effect>,
}

/// Writes a service table; equal tables give equal bytes.
///
/// # Errors
/// When a number in it is not finite.
pub fn table_to_bytes(table: &ServiceTable) -> Result<Vec<u8>, TableFileError> {
    if !table.is_finite() {
        return Err(TableFileError::NotFinite);
    }
    let unordered = postcard::to_stdvec(table).map_err(|_| TableFileError::Content)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(ordered(&unordered)?);
    bytes.extend(blake3::hash(&bytes).as_bytes());
    Ok(bytes)
}

/// Reads a service table that [`table_to_bytes`] wrote, and nothing else.
///
/// # Errors
/// Refuses every other byte string: cut off, longer, changed, of another version, or not a table.
pub fn table_from_bytes(bytes: &[u8]) -> Result<ServiceTable, TableFileError> {
    if !bytes.starts_with(MAGIC) {
        return Err(TableFileError::NotATable);
    }
    let content_bytes = bytes.len().checked_sub(TRAILER_BYTES).filter(|length| *length >= HEADER_BYTES);
    let (content, trailer) = bytes.split_at(content_bytes.ok_or(TableFileError::Checksum)?);
    if blake3::hash(content).as_bytes() != trailer {
        return Err(TableFileError::Checksum);
    }
    let (header, body) = content.split_at(HEADER_BYTES);
    let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if found != VERSION {
        return Err(TableFileError::Version { found });
    }
    if ordered(body)? != body {
        return Err(TableFileError::Content);
    }
    let table: ServiceTable = postcard::from_bytes(body).map_err(|_| TableFileError::Content)?;
    if table.is_finite() { Ok(table.prepared()) } else { Err(TableFileError::NotFinite) }
}

fn ordered(body: &[u8]) -> Result<Vec<u8>, TableFileError> {
    let (table, rest) = postcard::take_from_bytes::<OrderedTable>(body).map_err(|_| TableFileError::Content)?;
    if !rest.is_empty() {
        return Err(TableFileError::Content);
    }
    postcard::to_stdvec(&table).map_err(|_| TableFileError::Content)
}

#[cfg(test)]
mod tests {
    use shardwise_features::{ServiceObservations, golden};
    use shardwise_types::{FunctionId, PlacementRequest, Response, ShardId};

    use super::*;

    /// A table of many functions and shards; `backwards` sees the same responses in the opposite order.
    fn table(backwards: bool) -> ServiceTable {
        let request = golden::contexts().remove(0).request;
        let mut observations = ServiceObservations::default();
        let mut visit = |i: u32| {
            let function = FunctionId::from(format!("function-{}", i % 37).as_str());
            let shard = ShardId::from(format!("shard-{}", i % 11).as_str());
            let exec_ms = 4.0 + (i % 37) as f32;
            let cold = i.is_multiple_of(5);
            let response = Response { error: None, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 0, cold };
            observations.observe(&PlacementRequest { function, ..request.clone() }, &shard, &response);
        };
        for i in 0..407 {
            visit(if backwards { 406 - i } else { i });
        }
        observations.fit()
    }

    #[test]
    fn bytes_bring_the_same_table_back() {
        for table in [table(false), ServiceTable::default(), ServiceObservations::default().fit()] {
            let bytes = table_to_bytes(&table).expect("a finite table");
            assert_eq!(table_from_bytes(&bytes), Ok(table));
        }
    }

    #[test]
    fn order_of_the_maps_does_not_reach_the_bytes() {
        // Through JSON the maps are filled anew, in an order of their own and at another capacity.
        let table = table(true);
        let json = serde_json::to_vec(&table).expect("JSON");
        let again: ServiceTable = serde_json::from_slice(&json).expect("the same table");
        let bytes = [&table, &again, &table.clone()].map(|table| table_to_bytes(table).expect("a finite table"));
        assert_eq!(bytes[0], bytes[1]);
        assert_eq!(bytes[0], bytes[2]);
    }

    #[test]
    fn any_changed_byte_or_length_is_refused() {
        let bytes = table_to_bytes(&table(false)).expect("a finite table");
        for place in 0..bytes.len() {
            let mut mutant = bytes.clone();
            mutant[place] ^= 0x10;
            assert!(table_from_bytes(&mutant).is_err(), "byte {place}");
            assert!(table_from_bytes(&bytes[..place]).is_err(), "cut to {place} bytes");
        }
    }

    fn sealed(version: u32, body: &[u8]) -> Vec<u8> {
        let content = [MAGIC.as_slice(), &version.to_le_bytes(), body].concat();
        [content.as_slice(), blake3::hash(&content).as_bytes()].concat()
    }

    #[test]
    fn sealed_nonsense_is_refused() {
        let image = |ms: f32| OrderedTable {
            mean_ln_ms: ms,
            exponent: 0.6,
            residual_variance: 0.1,
            samples: 10.0,
            global_cold_ms: 5.0,
            functions: BTreeMap::from([(7, (1.0, 2.0))]),
            shards: BTreeMap::new(),
            protocol_shards: BTreeMap::new(),
            pairs: BTreeMap::new(),
            categories: BTreeMap::new(),
            cold_ms: BTreeMap::new(),
        };
        let body = postcard::to_stdvec(&image(1.0)).expect("bytes");
        assert!(table_from_bytes(&sealed(1, &body)).is_ok());
        let infinite = postcard::to_stdvec(&image(f32::INFINITY)).expect("bytes");
        for (bytes, expected) in [
            (sealed(1, &infinite), TableFileError::NotFinite),
            (sealed(9, &body), TableFileError::Version { found: 9 }),
            (sealed(1, &body[..body.len() - 1]), TableFileError::Content),
            (sealed(1, &[body.as_slice(), &[0]].concat()), TableFileError::Content),
            (sealed(1, &[0xff; 200]), TableFileError::Content),
            (b"SWSTABLE".to_vec(), TableFileError::Checksum),
            (Vec::new(), TableFileError::NotATable),
        ] {
            assert_eq!(table_from_bytes(&bytes), Err(expected));
        }
    }
}
