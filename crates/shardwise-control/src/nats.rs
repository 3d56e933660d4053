//! Commands and answers over NATS: core request and reply, for what was not answered is repeated anyway.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_trait::async_trait;
use futures_util::StreamExt;

use crate::transport::{Handler, Serving, Transport, TransportError};
use crate::{Events, LoadBalancingConfigUpdated};

/// The subject of the event that follows a commit.
pub const EVENT_SUBJECT: &str = "lucent.events.LoadBalancingConfigUpdated";

/// The way over a NATS server.
#[derive(Debug, Clone)]
pub struct Nats {
    client: Client,
}

impl Nats {
    /// Over a connection, which connects anew by itself when it is lost.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

fn broken(to: &str, error: &dyn std::fmt::Display) -> TransportError {
    TransportError::Broken { to: to.to_owned(), problem: error.to_string() }
}

/// The subject of an endpoint: what NATS gives a meaning (dots, stars, spaces …) is written as `=` and its code, so
/// that no two endpoints share one.
fn subject_of(endpoint: &str) -> String {
    let mut subject = String::with_capacity(endpoint.len());
    for byte in endpoint.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            subject.push(char::from(byte));
        } else {
            subject.push_str(&format!("={byte:02x}"));
        }
    }
    subject
}

#[async_trait]
impl Transport for Nats {
    async fn request(&self, to: &str, body: Vec<u8>, within: Duration) -> Result<Vec<u8>, TransportError> {
        let request = async_nats::Request::new().payload(body.into()).timeout(Some(within));
        match self.client.send_request(subject_of(to), request).await {
            Ok(message) => Ok(message.payload.to_vec()),
            Err(error) => Err(match error.kind() {
                async_nats::RequestErrorKind::NoResponders => TransportError::NoOne(to.to_owned()),
                async_nats::RequestErrorKind::TimedOut => TransportError::Late(to.to_owned()),
                _ => broken(to, &error),
            }),
        }
    }

    async fn serve(&self, endpoint: &str, handler: Arc<dyn Handler>) -> Result<Serving, TransportError> {
        let subscription = self.client.subscribe(subject_of(endpoint)).await;
        let mut messages = subscription.map_err(|error| broken(endpoint, &error))?;
        // The server knows of it when this returns: who asks next is answered.
        self.client.flush().await.map_err(|error| broken(endpoint, &error))?;
        let client = self.client.clone();
        let listening = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let Some(reply) = message.reply else { continue };
                let (client, handler) = (client.clone(), Arc::clone(&handler));
                // Beside the others: one that waits for its disk does not hold them up.
                tokio::spawn(async move {
                    let Some(answer) = handler.handle(message.payload.to_vec()).await else { return };
                    if let Err(error) = client.publish(reply, answer.into()).await {
                        tracing::debug!(%error, "an answer cannot be sent");
                    }
                });
            }
        });
        Ok(Serving::until(move || listening.abort()))
    }
}

#[async_trait]
impl Events for Nats {
    async fn publish(&self, event: &LoadBalancingConfigUpdated) {
        let body = serde_json::to_vec(event).expect("names and numbers are always JSON");
        if let Err(error) = self.client.publish(EVENT_SUBJECT, body.into()).await {
            tracing::warn!(%error, version = event.change.version, "LoadBalancingConfigUpdated cannot be published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_endpoints_share_a_subject() {
        for (endpoint, subject) in [
            ("function-manager-shard_1", "function-manager-shard_1"),
            ("function-manager-a.b", "function-manager-a=2eb"),
            ("function-manager-a=2eb", "function-manager-a=3d2eb"),
            ("x *>", "x=20=2a=3e"),
        ] {
            assert_eq!(subject_of(endpoint), subject);
        }
    }
}
