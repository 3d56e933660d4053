//! Ed25519 signatures over the digest of a manifest, and so over every byte of a version.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;

use crate::manifest::as_text;

/// The folder beside the manifest in which signatures lie.
pub(crate) const SIGNATURES_FOLDER: &str = "signatures";
/// Longest signature file that is read.
pub(crate) const MAX_SIGNATURE_BYTES: u64 = 4096;
/// Digits of the public key that name a signature's file.
const KEY_DIGITS: usize = 16;

/// Says why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: write 64 hexadecimal digits, such as those of `openssl rand -hex 32` for a secret key")]
pub struct BadKey {
    what: &'static str,
}

/// A secret key; its text is never shown.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key that 32 random bytes stand for.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The key that proves what this one signed.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public_key())
    }
}

impl FromStr for SigningKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        bytes_of(text).map(Self::from_seed).ok_or(BadKey { what: "a secret key" })
    }
}

/// A key that proves signatures, 64 hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a list of keys: one a line, the rest of a line after `#` is a remark.
    ///
    /// # Errors
    /// When a line is no key.
    pub fn list(text: &str) -> Result<Vec<Self>, BadKey> {
        let keys = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        keys.filter(|key| !key.is_empty()).map(str::parse).collect()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let key = bytes_of(text).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        key.filter(|key| !key.is_weak()).map(Self).ok_or(BadKey { what: "a public key" })
    }
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(text.trim()).ok()?.try_into().ok()
}

/// Who signed a version and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The signer's public key.
    pub key: String,
    /// The instant of signing, which is signed as well.
    #[serde(serialize_with = "as_text")]
    pub signed_at: Timestamp,
    /// The signature in 128 hexadecimal digits.
    pub signature: String,
}

impl Signature {
    pub(crate) fn of(digest: &str, key: &SigningKey, signed_at: Timestamp) -> Self {
        let signature = key.0.sign(&statement(digest, signed_at)).to_bytes();
        Self { key: key.public_key().to_string(), signed_at, signature: hex::encode(signature) }
    }

    /// Whether the key signed this digest at this instant.
    pub(crate) fn is_of(&self, digest: &str, key: &PublicKey) -> bool {
        // Upper case digits would be the same number in another file.
        let bytes = bytes_of(&self.signature).filter(|bytes| hex::encode(bytes) == self.signature);
        let signature = bytes.map(|bytes| ed25519_dalek::Signature::from_bytes(&bytes));
        signature.is_some_and(|signature| key.0.verify_strict(&statement(digest, self.signed_at), &signature).is_ok())
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}.json", &self.key[..KEY_DIGITS])
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("texts and a time can be written");
        bytes.push(b'\n');
        bytes
    }
}

/// What is signed; its first line keeps a signature from meaning anything elsewhere.
fn statement(digest: &str, signed_at: Timestamp) -> Vec<u8> {
    format!("shardwise model version\n{digest}\n{}\n", signed_at.nanos()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key: SigningKey = "07".repeat(32).parse().expect("a key");
        let public = key.public_key();
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(PublicKey::list(&format!("# ours\n\n{public} # alice\n")), Ok(vec![public]));
        assert!(!format!("{key:?}").contains(&"07".repeat(8)));
        let identity = format!("01{}", "00".repeat(31));
        for wrong in ["", "abc", &"07".repeat(31), &"zz".repeat(32), identity.as_str()] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
        assert!("07".repeat(33).parse::<SigningKey>().is_err());
    }
}
