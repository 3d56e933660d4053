//! Makes mutants: of bytes whatever they are, and of what they mean.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::fuzz::container;

/// Numbers that counts and lengths are made of when something is wrong with them.
const TELLING: [u32; 10] = [0, 1, 2, 3, 64, 65, 0xffff, 0x0001_0000, 0x7fff_ffff, u32::MAX];
const FOREST_HEADER: usize = 24;
const NODE: usize = 12;

/// Changes bytes once to thrice, whatever they are; `donor` gives what is grafted.
pub(crate) fn bytes(rng: &mut StdRng, content: &mut Vec<u8>, donor: &[u8]) {
    for _ in 0..rng.random_range(1..=3) {
        change(rng, content, donor);
    }
}

fn change(rng: &mut StdRng, content: &mut Vec<u8>, donor: &[u8]) {
    if content.is_empty() {
        content.extend(donor);
        return;
    }
    let (at, kind) = (rng.random_range(0..content.len()), rng.random_range(0..9));
    let length = rng.random_range(1..=64.min(content.len() - at));
    match kind {
        0 => content.truncate(at),
        1 => (0..rng.random_range(1..=8)).for_each(|_| {
            let place = rng.random_range(0..content.len());
            content[place] ^= 1 << rng.random_range(0..8);
        }),
        2 => {
            let other = rng.random_range(0..content.len());
            swap(content, at, other, length);
        }
        3 => {
            let again = content[at..at + length].to_vec();
            content.splice(at..at, again);
        }
        4 => _ = content.drain(at..at + length),
        5 => content[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).expect("some"),
        6 if content.len() >= at + 4 => {
            let number = telling(rng);
            content[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        7 if !donor.is_empty() => {
            let from = rng.random_range(0..donor.len());
            let graft = &donor[from..(from + length).min(donor.len())];
            content.splice(at..at + length, graft.iter().copied());
        }
        _ => content.extend((0..length).map(|_| rng.random::<u8>())),
    }
}

/// Exchanges two ranges as far as they do not overlap.
fn swap(content: &mut [u8], a: usize, b: usize, length: usize) {
    let (low, high) = (a.min(b), a.max(b));
    let length = length.min(high - low).min(content.len() - high);
    let (head, tail) = content.split_at_mut(high);
    head[low..low + length].swap_with_slice(&mut tail[..length]);
}

fn telling(rng: &mut StdRng) -> u32 {
    *TELLING.choose(rng).expect("some")
}

/// Changes what a forest means: its counts, the sizes of its trees, and its nodes, some of which are grafted from another
/// forest. The checksum is left to the caller.
pub(crate) fn forest(rng: &mut StdRng, content: &mut [u8], donor: &[u8]) {
    let n_trees = u32_at(content, 16) as usize;
    let nodes_at = FOREST_HEADER + 4 * n_trees;
    let n_nodes = (content.len() - 32 - nodes_at) / NODE;
    let place = |rng: &mut StdRng| nodes_at + NODE * rng.random_range(0..n_nodes);
    for _ in 0..rng.random_range(1..=3) {
        let at = place(rng);
        match rng.random_range(0..8) {
            0 => {
                let number = telling(rng);
                let field = *[12, 16, 20].choose(rng).expect("some");
                content[field..field + 4].copy_from_slice(&number.to_le_bytes());
            }
            1 => {
                // The nodes of one tree go to another: as many in all.
                let sizes = [(); 2].map(|()| FOREST_HEADER + 4 * rng.random_range(0..n_trees));
                let moved = rng.random_range(1..4).min(u32_at(content, sizes[0]));
                for (size, change) in [(sizes[0], moved.wrapping_neg()), (sizes[1], moved)] {
                    let number = u32_at(content, size).wrapping_add(change);
                    content[size..size + 4].copy_from_slice(&number.to_le_bytes());
                }
            }
            2 => {
                let from = FOREST_HEADER + 4 * u32_at(donor, 16) as usize;
                let nodes = (donor.len() - 32 - from) / NODE;
                let graft = from + NODE * rng.random_range(0..nodes);
                content[at..at + NODE].copy_from_slice(&donor[graft..graft + NODE]);
            }
            3 => {
                let other = place(rng);
                swap(content, at, other, NODE);
            }
            4 => content[at] = rng.random_range(0..7),
            5 => content[at + 2] = rng.random(),
            6 => {
                let odd = [f32::NAN, f32::INFINITY, -0.0, f32::MAX, 1e-36];
                content[at + 4..at + 8].copy_from_slice(&odd.choose(rng).expect("some").to_le_bytes());
            }
            _ => {
                let odd = [f64::NAN, f64::INFINITY, -0.0, f64::MAX, 1e-300];
                content[at + 4..at + 12].copy_from_slice(&odd.choose(rng).expect("some").to_le_bytes());
            }
        }
    }
}

fn u32_at(content: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(content[at..at + 4].try_into().expect("four bytes"))
}

/// Changes what a manifest says in one to three places.
pub(crate) fn manifest(rng: &mut StdRng, content: &[u8]) -> Vec<u8> {
    let mut said: Value = serde_json::from_slice(content).expect("a sound manifest");
    for _ in 0..rng.random_range(1..=3) {
        change_value(rng, &mut said, 0);
    }
    serde_json::to_vec(&said).expect("JSON")
}

/// Goes down to a place drawn at random and changes it.
fn change_value(rng: &mut StdRng, value: &mut Value, depth: usize) {
    let goes_down = depth < 4 && rng.random_bool(0.85);
    match value {
        Value::Object(map) if goes_down && !map.is_empty() => {
            let key = map.keys().nth(rng.random_range(0..map.len())).expect("there are so many").clone();
            match rng.random_range(0..12) {
                0 => _ = map.remove(&key),
                1 => {
                    let moved = map.remove(&key).expect("it is there");
                    map.insert(format!("{key}{}", rng.random_range(0..10)), moved);
                }
                2 => {
                    let other = map.values().nth(rng.random_range(0..map.len())).expect("there are so many").clone();
                    map.insert(key, other);
                }
                _ => change_value(rng, map.get_mut(&key).expect("it is there"), depth + 1),
            }
        }
        Value::Array(list) if goes_down && !list.is_empty() => {
            let (a, b) = (rng.random_range(0..list.len()), rng.random_range(0..list.len()));
            if rng.random_bool(0.5) { list.swap(a, b) } else { change_value(rng, &mut list[a], depth + 1) }
        }
        Value::Number(_) if rng.random_bool(0.7) => {
            *value = match rng.random_range(0..4) {
                0 => Value::from(telling(rng)),
                1 => Value::from(rng.random::<f64>() * 10.0 - 2.0),
                2 => Value::from(u64::MAX - rng.random_range(0..2)),
                _ => Value::from(1e308),
            };
        }
        Value::String(text) if rng.random_bool(0.7) => {
            let mut content = text.clone().into_bytes();
            bytes(rng, &mut content, b"../e\0\xc3\xa9");
            *value = Value::from(String::from_utf8_lossy(&content));
        }
        _ => *value = odd_value(rng),
    }
}

fn odd_value(rng: &mut StdRng) -> Value {
    match rng.random_range(0..7) {
        0 => Value::Null,
        1 => Value::from(true),
        2 => Value::from(-1),
        3 => Value::from(""),
        4 => Value::Array(vec![Value::Null; rng.random_range(0..4)]),
        5 => (0..rng.random_range(1..300)).fold(Value::Null, |inner, _| Value::Array(vec![inner])),
        _ => Value::Object(serde_json::Map::new()),
    }
}

/// Changes one of the files of a bundle in one of the ways above, and mostly makes its own checksum right again.
pub(crate) fn file(rng: &mut StdRng, files: &mut BTreeMap<String, Vec<u8>>, donor: &BTreeMap<String, Vec<u8>>) {
    let name = files.keys().nth(rng.random_range(0..files.len())).expect("there are so many").clone();
    let from = donor.get(&name).map_or(&[][..], Vec::as_slice);
    let content = files.get_mut(&name).expect("it is there");
    if name.ends_with(".forest") && !from.is_empty() && rng.random_bool(0.5) {
        forest(rng, content, from);
    } else {
        bytes(rng, content, from);
    }
    if rng.random_bool(0.8) {
        container::reseal_file(content);
    }
}
