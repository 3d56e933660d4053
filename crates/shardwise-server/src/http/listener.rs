//! Accepting connections: bounded in number, each request's head bounded in time, and ended in order.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::App;
use crate::config::Address;
use crate::figures::TurnedAway;

/// Told on a connection too many, whatever it asks; under TLS nothing can be told, and it is closed.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 164\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"reason\":\"connections\",\
\"detail\":\"too many connections; keep those you have, or ask another server\"}";
/// Pause after the system refused a connection, as when files run out.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A bound address.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// The socket's file goes with the listener.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds; a Unix socket that a dead process left behind is replaced.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub(crate) async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Address::Unix(path) => {
                remove_dead(path).await?;
                Ok(Self::Unix(UnixListener::bind(path)?, path.clone()))
            }
        }
    }

    /// Where it listens, with the port that was given.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|error| error.to_string(), |at| at.to_string()),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and whole: nothing is gained by waiting for more of them.
                _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            _ = std::fs::remove_file(path);
        }
    }
}

async fn remove_dead(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if tokio::net::UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::other("another process listens there"));
            }
            std::fs::remove_file(path)
        }
        Ok(_) => Err(io::Error::other("there is a file that is no socket; remove it, or name another path")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Serves until `stop` says so, then ends connections when their requests are answered, within `limits.drain_ms`.
pub(crate) async fn serve(
    listener: Listener,
    tls: Option<TlsAcceptor>,
    router: Router,
    app: Arc<App>,
    mut stop: watch::Receiver<bool>,
) {
    let limits = app.config.limits;
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(limits.head_ms)).keep_alive(true);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= limits.connections {
            app.live.figures.turn_away(TurnedAway::Connections);
            if tls.is_none() {
                tokio::spawn(tell_too_many(stream));
            }
            continue;
        }
        let (http, tls, router, watcher) = (http.clone(), tls.clone(), router.clone(), graceful.watcher());
        connections.spawn(async move {
            let Some(stream) = secured(stream, tls).await else { return };
            let service = TowerToHyperService::new(router);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            // A client that goes away in between, or is too slow, is no failure of the server.
            _ = watcher.watch(connection).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(Duration::from_millis(limits.drain_ms), graceful.shutdown()).await.is_err() {
        tracing::warn!(ms = limits.drain_ms, "connections are cut off that did not end in time");
    }
    // Nothing is decided any more when this returns: what comes after writes the end of the journal.
    connections.shutdown().await;
}

async fn tell_too_many(mut stream: Box<dyn Stream>) {
    if tokio::time::timeout(AFTER_FAILURE, stream.write_all(TOO_MANY)).await.is_ok() {
        _ = stream.shutdown().await;
    }
}

async fn secured(stream: Box<dyn Stream>, tls: Option<TlsAcceptor>) -> Option<Pin<Box<dyn Stream>>> {
    let Some(tls) = tls else { return Some(Box::into_pin(stream)) };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::pin(stream)),
        Ok(Err(_)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_connection_too_many_is_as_long_as_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["reason"], "connections");
    }
}
