//! Keys that sign versions, and the policy that says which versions are trusted.

use std::path::Path;

use miette::miette;
use shardwise_models::{PublicKey, SigningKey, TrustPolicy};

use super::files;
use crate::arguments::{SigningArguments, TrustArguments};

/// Holds the secret key when no file is named.
const SIGNING_KEY: &str = "SHARDWISE_SIGNING_KEY";

/// The key that signs: from a file, else from the environment, else none.
pub(crate) fn signing_key(options: &SigningArguments) -> miette::Result<Option<SigningKey>> {
    let (place, text) = match &options.signing_key {
        Some(file) => (file.display().to_string(), files::read(file)?),
        None => match std::env::var(SIGNING_KEY) {
            Ok(text) => (SIGNING_KEY.to_owned(), text),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(miette!("{SIGNING_KEY}: {error}")),
        },
    };
    text.parse().map(Some).map_err(|error| miette!("{place}: {error}"))
}

/// The policy that the options ask for.
pub(crate) fn policy(options: &TrustArguments) -> miette::Result<TrustPolicy> {
    let keys = options.trusted_keys.as_deref().map(public_keys).transpose()?.unwrap_or_default();
    Ok(TrustPolicy { keys, trained_since: options.trained_since, signed_since: options.signed_since })
}

fn public_keys(file: &Path) -> miette::Result<Vec<PublicKey>> {
    let keys = PublicKey::list(&files::read(file)?).map_err(|error| miette!("{}: {error}", file.display()))?;
    // No key would mean that no signature is asked for.
    if keys.is_empty() {
        let help = "write one public key a line; `shardwise models show` prints that of whoever signed";
        return Err(miette!(help = help, "{} holds no key", file.display()));
    }
    Ok(keys)
}
