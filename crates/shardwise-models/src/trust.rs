//! Which versions may be served: a policy over signatures, ages and features, with a reason for each refusal.

use std::path::{Path, PathBuf};

use shardwise_types::Timestamp;

use crate::bundle::{BundleError, ModelBundle};
use crate::signature::{PublicKey, SIGNATURES_FOLDER, Signature};

/// What a version must be; the default asks for what every bundle must be, and for no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// Keys of which one must have signed; unsigned versions pass when there are none.
    pub keys: Vec<PublicKey>,
    /// The last training row must not be older than this.
    pub trained_since: Option<Timestamp>,
    /// A trusted key must have signed at this instant or later, so that what was good once cannot be put back.
    pub signed_since: Option<Timestamp>,
}

/// Says why a version may not be served.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody signed it.
    #[error("{}: nobody signed this version; sign it with a trusted key, or take another", path.display())]
    Unsigned {
        /// Place of the version.
        path: PathBuf,
    },
    /// Only others signed it.
    #[error("{}: signed by {key}, which is not trusted; add the key if you trust it, or take another version", path.display())]
    UntrustedKey {
        /// Place of the version.
        path: PathBuf,
        /// A key that signed.
        key: String,
    },
    /// A signature is not of this content.
    #[error("{}: {problem}; the version was changed after it was signed, fetch it again", path.display())]
    Tampered {
        /// Place of the version.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// It was signed too long ago.
    #[error("{}: signed at {signed_at}, but only what was signed since {since} is allowed; take a newer version, or sign it anew", path.display())]
    Replayed {
        /// Place of the version.
        path: PathBuf,
        /// The latest trusted signature.
        signed_at: Timestamp,
        /// The earliest that is allowed.
        since: Timestamp,
    },
    /// It was trained on old data.
    #[error("{}: trained on data up to {trained_to}, but only what was trained up to {since} or later is allowed; train again", path.display())]
    Outdated {
        /// Place of the version.
        path: PathBuf,
        /// Time of its last training row.
        trained_to: Timestamp,
        /// The earliest that is allowed.
        since: Timestamp,
    },
    /// It is no bundle that can be served here.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Refusal {
    /// The reason in a word, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unsigned { .. } => "unsigned",
            Self::UntrustedKey { .. } => "untrusted_key",
            Self::Tampered { .. } => "tampered",
            Self::Replayed { .. } => "replayed",
            Self::Outdated { .. } => "outdated",
            Self::Bundle(error) => error.reason(),
        }
    }
}

impl BundleError {
    /// The reason in a word, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Checksum { .. } | Self::Digest { .. } => "tampered",
            Self::Fingerprint { .. } | Self::FeatureName { .. } => "wrong_fingerprint",
            Self::Size { .. } | Self::Missing { .. } => "incomplete",
            Self::FormatVersion { .. } => "unknown_format",
            Self::Unreadable { .. } | Self::Unwritable { .. } => "unreadable",
            _ => "damaged",
        }
    }
}

impl TrustPolicy {
    /// Verifies the bytes of a version that `read` brings; `place` is for messages. Signatures come first: of what nobody
    /// trusted signed, nothing is parsed.
    pub(crate) fn admit<'a>(
        &self,
        place: &Path,
        manifest: &[u8],
        signatures: impl IntoIterator<Item = &'a [u8]>,
        read: impl Fn(&str, u64) -> Result<Vec<u8>, BundleError>,
    ) -> Result<ModelBundle, Refusal> {
        if !self.keys.is_empty() || self.signed_since.is_some() {
            let digest = blake3::hash(manifest).to_hex();
            self.check_signatures(place, &digest, signatures)?;
        }
        let bundle = ModelBundle::admit(place, manifest, read)?;
        let trained_to = bundle.manifest().trained_to;
        match self.trained_since {
            Some(since) if trained_to < since => Err(Refusal::Outdated { path: place.to_owned(), trained_to, since }),
            _ => Ok(bundle),
        }
    }

    /// One sound signature by a trusted key, not too old, is enough. Those of strangers are passed over, but a file that is
    /// no signature, or one of other content under a trusted key's name, is a sign of tampering.
    fn check_signatures<'a>(
        &self,
        place: &Path,
        digest: &str,
        signatures: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Refusal> {
        let path = || place.to_owned();
        let tampered =
            |problem: &str| Refusal::Tampered { path: place.join(SIGNATURES_FOLDER), problem: problem.to_owned() };
        let (mut stranger, mut signed_at) = (None, None);
        for bytes in signatures {
            let unreadable = |_| tampered("a signature cannot be read");
            let signature: Signature = serde_json::from_slice(bytes).map_err(unreadable)?;
            if signature.to_bytes() != bytes {
                return Err(tampered("a signature is not as it was written"));
            }
            let Some(key) = self.keys.iter().find(|key| key.to_string() == signature.key) else {
                stranger = Some(signature.key);
                continue;
            };
            if !signature.is_of(digest, key) {
                return Err(tampered("the signature is not of this manifest"));
            }
            signed_at = signed_at.max(Some(signature.signed_at));
        }
        match (signed_at, stranger) {
            (Some(signed_at), _) => match self.signed_since {
                Some(since) if signed_at < since => Err(Refusal::Replayed { path: path(), signed_at, since }),
                _ => Ok(()),
            },
            (None, Some(key)) => Err(Refusal::UntrustedKey { path: path(), key }),
            (None, None) => Err(Refusal::Unsigned { path: path() }),
        }
    }
}

#[cfg(test)]
mod tests;
