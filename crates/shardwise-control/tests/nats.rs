//! The protocol over a real NATS server, which is killed and restarted.
#![cfg(feature = "nats")]

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use shardwise_control::{
    AgentHost, AgentParts, Configuration, ControlParts, ControlPlane, EVENT_SUBJECT, Enforcer,
    LoadBalancingConfigUpdated, Member, Nats, Outcome, Proposal, Settings, ShardUsage, StateFile, Surroundings,
    TrafficSplit, What, system_clock,
};
use shardwise_types::{FunctionId, ShardId};

const SETTINGS: Settings = Settings {
    lead_ms: 4_000,
    margin_ms: 2_000,
    lease_ms: 1_500,
    ask_every_ms: 100,
    repeat_every_ms: 100,
    clock_error_ms: 100,
};

/// The server that the environment names, or that is on the path.
fn nats_server() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&paths).map(|folder| folder.join("nats-server")).find(|path| path.is_file());
    std::env::var_os("SHARDWISE_NATS_SERVER").map(PathBuf::from).or_else(found)
}

struct Server(Child);

impl Server {
    fn start(program: &Path, port: u16) -> Self {
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a nats-server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

struct Around;

impl Surroundings for Around {
    fn usage(&self) -> Option<ShardUsage> {
        Some(ShardUsage::default())
    }

    fn knows(&self, _shard: &ShardId) -> bool {
        true
    }
}

impl Enforcer for Around {
    fn update(&self, _holds: &Configuration) {}
}

async fn connect(port: u16) -> async_nats::Client {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let options = options.reconnect_delay_callback(|_| Duration::from_millis(100));
    options.connect(format!("127.0.0.1:{port}")).await.expect("it goes on trying")
}

fn proposal(shard: &Member) -> Proposal {
    let shard = shard.as_shard().expect("a shard").clone();
    let split = TrafficSplit::of([(shard, 1.0)]).expect("it is right");
    let what = What::Split { function: FunctionId::new("f"), split };
    Proposal { author: "ann".to_owned(), why: "a test".to_owned(), what, from_version: None }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            // The next change may be proposed when the slowest clock has come to the instant, too.
            tokio::time::sleep(Duration::from_millis(2 * SETTINGS.clock_error_ms)).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_through_the_broker_and_none_without_it() {
    let Some(program) = nats_server() else {
        // Straight to the terminal, for the test runner swallows what passing tests print.
        _ = writeln!(std::io::stderr(), "skipped: no nats-server on PATH, and SHARDWISE_NATS_SERVER names none");
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let server = Server::start(&program, port);
    let folder = tempfile::tempdir().expect("a folder");
    let members = [Member::shard("a.b c"), Member::shard("d"), Member::router("r")];
    let mut agents = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let parts = AgentParts {
            member: member.clone(),
            settings: SETTINGS,
            file: StateFile::new(&folder.path().join(format!("{number}.json"))),
            transport: Arc::new(Nats::new(connect(port).await)),
            surroundings: Box::new(Around),
            enforcer: Box::new(Around),
            clock: system_clock(),
        };
        agents.push(AgentHost::start(parts).await.expect("it starts"));
    }
    let client = connect(port).await;
    let mut events = client.subscribe(EVENT_SUBJECT).await.expect("a subject");
    let nats = Nats::new(client);
    let parts = ControlParts {
        settings: SETTINGS,
        transport: Arc::new(nats.clone()),
        events: Box::new(nats),
        clock: system_clock(),
    };
    let plane = ControlPlane::start(folder.path(), parts).await.expect("it starts");
    let all = |version, certain| {
        agents.iter().map(AgentHost::status).all(|it| it.serves == version && it.standing.is_certain() == certain)
    };
    eventually("all are certain", || all(0, true)).await;

    let entry = plane.change(proposal(&members[0]), &members).await.expect("it can be proposed");
    assert_eq!(entry.outcome, Outcome::Committed, "{entry:?}");
    eventually("all serve 1", || all(1, true)).await;
    let event = events.next().await.expect("the event of the commit");
    let event: LoadBalancingConfigUpdated = serde_json::from_slice(&event.payload).expect("JSON");
    assert_eq!(event.change, entry.change);

    drop(server);
    eventually("all are unconfirmed", || all(1, false)).await;
    let entry = plane.change(proposal(&members[1]), &members).await.expect("it can be proposed");
    assert_eq!((entry.outcome, entry.reasons.len()), (Outcome::Withdrawn, 3), "{entry:?}");

    let _server = Server::start(&program, port);
    eventually("all are certain again", || all(1, true)).await;
    let entry = plane.change(proposal(&members[1]), &members).await.expect("it can be proposed");
    assert_eq!((entry.outcome, entry.change.version), (Outcome::Committed, 3), "{entry:?}");
    eventually("all serve 3", || all(3, true)).await;
}
