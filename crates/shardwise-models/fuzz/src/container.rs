//! A bundle in one byte string, so that a fuzzer can change any of its parts: of each file, the manifest first, the length of
//! its name in a byte, its name, its length in four (little-endian), and its content.

use std::collections::BTreeMap;

/// The name of the manifest.
pub const MANIFEST: &str = "manifest.json";

/// Packs a manifest and the files beside it.
///
/// # Panics
/// If a name is longer than 255 bytes or a file than 4 GiB.
pub fn pack(manifest: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut packed = Vec::new();
    let files = files.iter().map(|(name, content)| (name.as_str(), content.as_slice()));
    for (name, content) in [(MANIFEST, manifest)].into_iter().chain(files) {
        packed.push(u8::try_from(name.len()).expect("a short name"));
        packed.extend(name.as_bytes());
        packed.extend(u32::try_from(content.len()).expect("a small file").to_le_bytes());
        packed.extend(content);
    }
    packed
}

/// Unpacks as much as there is; what is cut off is shorter.
pub fn unpack(mut packed: &[u8]) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let (mut manifest, mut files) = (Vec::new(), BTreeMap::new());
    while let Some((&n, rest)) = packed.split_first() {
        let (name, rest) = rest.split_at(rest.len().min(usize::from(n)));
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { break };
        let (content, rest) = rest.split_at(rest.len().min(u32::from_le_bytes(*length) as usize));
        if name == MANIFEST.as_bytes() {
            manifest = content.to_vec();
        } else {
            files.insert(String::from_utf8_lossy(name).into_owned(), content.to_vec());
        }
        packed = rest;
    }
    (manifest, files)
}

/// Makes a manifest say what the files beside it are, so that what is behind the checksums is reached. What is no manifest
/// stays as it is.
pub fn reseal(manifest: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let Ok(mut said) = serde_json::from_slice::<serde_json::Value>(manifest) else { return manifest.to_vec() };
    let Some(entries) = said.get_mut("files").and_then(serde_json::Value::as_object_mut) else {
        return manifest.to_vec();
    };
    for (name, entry) in entries {
        if let (Some(content), Some(entry)) = (files.get(name), entry.as_object_mut()) {
            entry.insert("bytes".to_owned(), content.len().into());
            entry.insert("blake3".to_owned(), blake3::hash(content).to_hex().as_str().into());
        }
    }
    serde_json::to_vec(&said).unwrap_or_default()
}

/// Puts the right checksum at the end of a forest or a service table.
pub fn reseal_file(content: &mut Vec<u8>) {
    content.truncate(content.len().saturating_sub(32));
    content.extend(blake3::hash(content).as_bytes());
}
