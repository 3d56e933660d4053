//! Requests and answers between the coordinator and agents: the trait, and the way within one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

/// Why there is no answer. All are the same to the protocol, which repeats and in the end withdraws.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nobody listens there.
    #[error("nobody listens at {0}")]
    NoOne(String),
    /// Nobody has answered in time.
    #[error("{0} did not answer in time")]
    Late(String),
    /// The way itself is broken.
    #[error("{to} cannot be reached: {problem}")]
    Broken {
        /// Whom.
        to: String,
        /// Why.
        problem: String,
    },
}

/// A way for requests, each answered within a deadline or not at all.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Asks whoever listens at `to`.
    ///
    /// # Errors
    /// When there is no answer within the time.
    async fn request(&self, to: &str, body: Vec<u8>, within: Duration) -> Result<Vec<u8>, TransportError>;

    /// Answers what is asked at `endpoint` until what is returned is dropped.
    ///
    /// # Errors
    /// When it cannot listen there.
    async fn serve(&self, endpoint: &str, handler: Arc<dyn Handler>) -> Result<Serving, TransportError>;
}

/// Whoever answers requests.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers one; `None` when it is nothing that can be answered.
    async fn handle(&self, body: Vec<u8>) -> Option<Vec<u8>>;
}

/// Listens while it lives.
pub struct Serving(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Serving {
    /// With what ends it.
    pub fn until(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

type Handlers = Arc<Mutex<BTreeMap<String, Arc<dyn Handler>>>>;

/// The way within one process.
#[derive(Clone, Default)]
pub struct InProcess {
    handlers: Handlers,
}

#[async_trait]
impl Transport for InProcess {
    async fn request(&self, to: &str, body: Vec<u8>, within: Duration) -> Result<Vec<u8>, TransportError> {
        let handler = lock(&self.handlers).get(to).cloned().ok_or_else(|| TransportError::NoOne(to.to_owned()))?;
        match tokio::time::timeout(within, handler.handle(body)).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(TransportError::Broken { to: to.to_owned(), problem: "it gave no answer".to_owned() }),
            Err(_) => Err(TransportError::Late(to.to_owned())),
        }
    }

    async fn serve(&self, endpoint: &str, handler: Arc<dyn Handler>) -> Result<Serving, TransportError> {
        lock(&self.handlers).insert(endpoint.to_owned(), Arc::clone(&handler));
        let (handlers, endpoint) = (Arc::clone(&self.handlers), endpoint.to_owned());
        Ok(Serving::until(move || {
            let mut handlers = lock(&handlers);
            // A successor may listen there by now.
            if handlers.get(&endpoint).is_some_and(|now| Arc::ptr_eq(now, &handler)) {
                handlers.remove(&endpoint);
            }
        }))
    }
}

fn lock(handlers: &Handlers) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<dyn Handler>>> {
    // Each change of the map is one call, so that it is whole whatever a holder did.
    handlers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    #[async_trait]
    impl Handler for Echo {
        async fn handle(&self, body: Vec<u8>) -> Option<Vec<u8>> {
            match body.as_slice() {
                b"sleep" => std::future::pending().await,
                b"nothing" => None,
                _ => Some(body),
            }
        }
    }

    #[tokio::test]
    async fn requests_are_answered_while_somebody_serves() {
        let transport = InProcess::default();
        let ask = async |body: &[u8]| transport.request("echo", body.to_vec(), Duration::from_millis(20)).await;
        assert_eq!(ask(b"x").await, Err(TransportError::NoOne("echo".to_owned())));
        let first = transport.serve("echo", Arc::new(Echo)).await.expect("always");
        assert_eq!(ask(b"x").await, Ok(b"x".to_vec()));
        assert_eq!(ask(b"sleep").await, Err(TransportError::Late("echo".to_owned())));
        assert!(matches!(ask(b"nothing").await, Err(TransportError::Broken { .. })));
        let second = transport.serve("echo", Arc::new(Echo)).await.expect("always");
        drop(first);
        assert_eq!(ask(b"x").await, Ok(b"x".to_vec()), "the successor goes on");
        drop(second);
        assert!(ask(b"x").await.is_err());
    }
}
