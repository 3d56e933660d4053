//! A real nats-server on a free port, with its store on disk.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The binary that the environment names, or that is on the path.
fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("SHARDWISE_NATS_SERVER").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&paths).map(|folder| folder.join("nats-server")).find(|path| path.is_file());
    named.or_else(found)
}

/// Ends its process when the test does, however it does.
pub(crate) struct Broker {
    binary: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl Broker {
    /// A broker that does not run yet; none, and a word on stderr, when there is no binary.
    pub(crate) fn find() -> Option<Self> {
        let Some(binary) = binary() else {
            eprintln!("skipped: no nats-server on PATH, and SHARDWISE_NATS_SERVER names none");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        Some(Self { binary, folder, port, running: None })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn store(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it on the store that it left, and waits until it listens.
    pub(crate) async fn start(&mut self) {
        let started = Command::new(&self.binary)
            .args(["--jetstream", "--addr", "127.0.0.1", "--port", &self.port.to_string(), "--store_dir"])
            .arg(self.store())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(started.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display())));
        for _ in 0..1000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nats-server does not listen on port {}", self.port);
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().expect("it runs");
            running.wait().expect("it ends");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
