//! Where shards are, as a router says.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;
use shardwise_types::ShardId;

use super::LoadDriverError;
use super::client::Client;

const PATH: &str = "/v1/fleet";

/// A router's answer; it may say more.
#[derive(Deserialize)]
struct Listing {
    shards: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: ShardId,
    /// A shard that has not said where it is.
    #[serde(default)]
    address: Option<String>,
}

/// Addresses of shards.
#[derive(Default)]
pub(super) struct Addresses {
    known: RwLock<HashMap<ShardId, String>>,
}

impl Addresses {
    /// Asks a router for the first time.
    pub(super) fn ask(client: &Client, router: &str) -> Result<Self, LoadDriverError> {
        let failed = |problem| LoadDriverError::Fleet { router: router.to_owned(), problem };
        let addresses = Self::default();
        addresses.refresh(client, router).map_err(failed)?;
        let is_empty = addresses.known.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        if is_empty { Err(failed("none of its shards has an address".to_owned())) } else { Ok(addresses) }
    }

    /// Asks again. What was known is kept when the router does not answer.
    pub(super) fn refresh(&self, client: &Client, router: &str) -> Result<(), String> {
        let body = client.get(&format!("{router}{PATH}"))?.success()?;
        let listing: Listing = serde_json::from_str(&body).map_err(|error| format!("no list of shards: {error}"))?;
        let address = |shard: Listed| Some((shard.id, shard.address?.trim_end_matches('/').to_owned()));
        let known = listing.shards.into_iter().filter_map(address).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    pub(super) fn of(&self, shard: &ShardId) -> Option<String> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(shard).cloned()
    }
}
