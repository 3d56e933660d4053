//! Bundles that must not be served, thousands of them, and the reason for each.

use super::*;
use crate::BundleDraft;
use crate::package::Package;
use crate::signature::SigningKey;

const HOUR_NS: i64 = 3_600_000_000_000;

fn ours() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn now() -> Timestamp {
    "2026-11-25T00:00:00Z".parse().expect("a time")
}

fn hours_before(hours: i64) -> Timestamp {
    Timestamp::from_nanos(now().nanos() - hours * HOUR_NS)
}

/// Ours, trained in the last week and signed in the last day.
fn policy() -> TrustPolicy {
    let keys = vec![ours().public_key()];
    TrustPolicy { keys, trained_since: Some(hours_before(7 * 24)), signed_since: Some(hours_before(24)) }
}

fn unsigned(seed: u64) -> Package {
    let draft = BundleDraft { seed, trained_to: hours_before(2), ..BundleDraft::example() };
    draft.package().expect("a sound draft")
}

fn signed(seed: u64) -> Package {
    let mut package = unsigned(seed);
    package.sign(&ours(), hours_before(1));
    package
}

fn reason(package: &Package) -> &'static str {
    package.admit(Path::new("model"), &policy()).map_or_else(|refusal| refusal.reason(), |_| "served")
}

fn flip(bytes: &mut [u8], at: usize) {
    let place = at % bytes.len();
    bytes[place] ^= 1 << (at % 8);
}

/// The content of some file, which has some bytes.
fn some_file(package: &mut Package, at: usize) -> &mut Vec<u8> {
    let count = package.files.len();
    package.files.values_mut().nth(at % count).expect("a file")
}

fn resign(package: &mut Package) {
    package.signatures.clear();
    package.sign(&ours(), hours_before(1));
}

fn spoilt(base: &Package, case: usize, at: usize) -> (Package, &'static str) {
    let mut package = base.clone();
    let expected = match case {
        0 => {
            flip(some_file(&mut package, at), at / 3);
            "tampered"
        }
        1 => {
            flip(&mut package.manifest, at);
            "tampered"
        }
        2 => {
            let signature = package.signatures.values_mut().next().expect("a signature");
            flip(signature, at);
            // Which bit it is decides whether the key, the instant, the signature or the form no longer fits.
            return (package, "tampered or untrusted_key");
        }
        3 => {
            let file = some_file(&mut package, at);
            file.truncate((at / 3) % file.len());
            "incomplete"
        }
        4 => {
            let length = at % package.manifest.len();
            package.manifest.truncate(length);
            "tampered"
        }
        5 => {
            package.signatures.clear();
            package.sign(&SigningKey::from_seed([(at % 250) as u8 + 2; 32]), hours_before(1));
            "untrusted_key"
        }
        6 => {
            // Put back from before what is allowed.
            package.signatures.clear();
            package.sign(&ours(), hours_before(25 + at as i64 % 10_000));
            "replayed"
        }
        7 => {
            package.signatures.clear();
            "unsigned"
        }
        8 => {
            let (manifest, own) =
                (String::from_utf8(package.manifest).expect("text"), shardwise_features::fingerprint());
            package.manifest = manifest.replace(own, blake3::hash(&at.to_le_bytes()).to_hex().as_str()).into_bytes();
            resign(&mut package);
            "wrong_fingerprint"
        }
        _ => {
            // Under the signature of another version of ours.
            package.signatures = signed(1_000_000 + at as u64 % 7).signatures;
            "tampered"
        }
    };
    (package, expected)
}

#[test]
fn ten_thousand_spoilt_bundles_are_refused_for_the_right_reason() {
    let bases: Vec<_> = (0..4).map(signed).collect();
    for base in &bases {
        assert_eq!(reason(base), "served");
    }
    for number in 0..10_000_usize {
        let at =
            blake3::hash(&number.to_le_bytes()).as_bytes()[..4].iter().fold(0, |sum, byte| sum * 256 + *byte as usize);
        let (package, expected) = spoilt(&bases[number / 10 % bases.len()], number % 10, at);
        let found = reason(&package);
        assert!(expected.split(" or ").any(|expected| expected == found), "{number}: {found}, not {expected}");
    }
}

#[test]
fn old_training_data_is_refused() {
    for hours in 169..400 {
        let draft = BundleDraft { trained_to: hours_before(hours), ..BundleDraft::example() };
        let mut package = draft.package().expect("a sound draft");
        resign(&mut package);
        assert_eq!(reason(&package), "outdated");
    }
}

#[test]
fn a_second_signature_neither_hides_nor_spoils_the_first() {
    let mut package = signed(1);
    package.sign(&SigningKey::from_seed([9; 32]), now());
    assert_eq!(reason(&package), "served");
    package.signatures.insert("odd.json".to_owned(), b"{".to_vec());
    assert_eq!(reason(&package), "tampered");
}

#[test]
fn signing_again_renews_and_the_default_asks_for_no_signature() {
    let mut package = unsigned(1);
    package.sign(&ours(), hours_before(1_000));
    assert_eq!(reason(&package), "replayed");
    package.sign(&ours(), now());
    assert_eq!(reason(&package), "served");
    assert!(unsigned(1).admit(Path::new("model"), &TrustPolicy::default()).is_ok());
}

#[test]
fn cut_exports_are_refused() {
    let tar = signed(1).to_tar().expect("a tar");
    for length in (0..tar.len() - 1024).step_by(61) {
        if let Ok(package) = Package::from_tar(&tar[..length]) {
            let found = reason(&package);
            assert!(["incomplete", "unsigned"].contains(&found), "{length} bytes: {found}");
        }
    }
}
