//! A split for 16 shards: with one that is dead, slow or says no it is applied nowhere; with all alive, everywhere at
//! one instant; and a router that is restarted in between ends in the same version.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shardwise_control::commands::{ChangeOptions, LimitsOptions, RollbackOptions, SplitOptions};
use shardwise_control::{
    AgentHost, AgentParts, Command, Configuration, ControlError, ControlParts, ControlPlane, Enforcer, Events, Handler,
    InProcess, LoadBalancingConfigUpdated, Member, Outcome, Pick, Refusal, Serving, Settings, ShardLimits, ShardUsage,
    StateFile, Surroundings, Transport, commands, system_clock,
};
use shardwise_types::{FunctionId, ShardId, Timestamp};

const SHARDS: usize = 16;
const SETTINGS: Settings = Settings {
    lead_ms: 4_000,
    margin_ms: 2_000,
    lease_ms: 1_500,
    ask_every_ms: 100,
    repeat_every_ms: 100,
    clock_error_ms: 100,
};

/// What happened around the fleet.
#[derive(Default)]
struct Noted {
    events: Mutex<Vec<u64>>,
    capacities: Mutex<BTreeMap<ShardId, f64>>,
}

struct Noting(Arc<Noted>);

#[async_trait]
impl Events for Noting {
    async fn publish(&self, event: &LoadBalancingConfigUpdated) {
        self.0.events.lock().expect("not poisoned").push(event.change.version);
    }
}

impl Enforcer for Noting {
    fn update(&self, holds: &Configuration) {
        let cores = holds.limits.iter().map(|(shard, limits)| (shard.clone(), limits.max_cpu_cores)).collect();
        *self.0.capacities.lock().expect("not poisoned") = cores;
    }
}

struct Idle;

impl Enforcer for Idle {
    fn update(&self, _holds: &Configuration) {}
}

/// A shard that uses three cores of a fleet of 16.
struct Busy;

impl Surroundings for Busy {
    fn usage(&self) -> Option<ShardUsage> {
        Some(ShardUsage { cpu_cores: 3.0, memory_mb: 1_000.0, functions: 5, requests_in_flight: 7 })
    }

    fn knows(&self, shard: &ShardId) -> bool {
        (0..SHARDS).any(|number| shard_name(number) == shard.as_str())
    }
}

fn shard_name(number: usize) -> String {
    format!("shard-{number:02}")
}

fn fleet() -> Vec<Member> {
    let shards = (0..SHARDS).map(|number| Member::shard(&shard_name(number)));
    shards.chain([Member::router("router-1")]).collect()
}

struct Fleet {
    folder: tempfile::TempDir,
    transport: InProcess,
    noted: Arc<Noted>,
    plane: ControlPlane,
    agents: BTreeMap<Member, AgentHost>,
}

impl Fleet {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (transport, noted) = (InProcess::default(), Arc::new(Noted::default()));
        let plane = start_plane(folder.path(), &transport, &noted).await;
        let mut it = Self { folder, transport, noted, plane, agents: BTreeMap::new() };
        for member in fleet() {
            it.start_agent(member).await;
        }
        it.all_serve(0).await;
        it
    }

    async fn start_agent(&mut self, member: Member) {
        let enforcer: Box<dyn Enforcer> = match &member {
            Member::Router(_) => Box::new(Noting(Arc::clone(&self.noted))),
            Member::Shard(_) => Box::new(Idle),
        };
        let parts = AgentParts {
            member: member.clone(),
            settings: SETTINGS,
            file: StateFile::new(&self.folder.path().join(format!("{}.json", member.endpoint()))),
            transport: Arc::new(self.transport.clone()),
            surroundings: Box::new(Busy),
            enforcer,
            clock: system_clock(),
        };
        self.agents.insert(member, AgentHost::start(parts).await.expect("it starts"));
    }

    /// Waits until all agents are certain of a version.
    async fn all_serve(&self, version: u64) {
        let all =
            || self.agents.values().map(AgentHost::status).all(|it| it.serves == version && it.standing.is_certain());
        for _ in 0..600 {
            if all() {
                // The next change may be proposed when the slowest clock has come to the instant, too.
                tokio::time::sleep(Duration::from_millis(2 * SETTINGS.clock_error_ms)).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let found: Vec<_> = self.agents.values().map(AgentHost::status).collect();
        panic!("not all serve {version}: {found:?}");
    }

    async fn split(&self, steps: &[&str]) -> commands::Changed {
        let options = SplitOptions {
            function: "price".to_owned(),
            steps: steps.iter().map(|&step| step.to_owned()).collect(),
            change: by_ann(),
        };
        commands::split(&self.plane, &fleet(), &options).await.expect("it can be proposed")
    }
}

async fn start_plane(folder: &Path, transport: &InProcess, noted: &Arc<Noted>) -> ControlPlane {
    let parts = ControlParts {
        settings: SETTINGS,
        transport: Arc::new(transport.clone()),
        events: Box::new(Noting(Arc::clone(noted))),
        clock: system_clock(),
    };
    ControlPlane::start(folder, parts).await.expect("it starts")
}

fn by_ann() -> ChangeOptions {
    ChangeOptions { author: "ann".to_owned(), why: "a canary".to_owned(), without: Vec::new(), from_version: None }
}

/// What a sick shard does with commands.
#[derive(Clone, Copy)]
enum Sick {
    Slow,
    AnswersForAnotherVersion,
}

struct SickShard(Sick, Member);

#[async_trait]
impl Handler for SickShard {
    async fn handle(&self, body: Vec<u8>) -> Option<Vec<u8>> {
        let command: Command = serde_json::from_slice(&body).expect("a command");
        if matches!(self.0, Sick::Slow) {
            tokio::time::sleep(Duration::from_millis(SETTINGS.lead_ms)).await;
        }
        let version = command.version() + u64::from(matches!(self.0, Sick::AnswersForAnotherVersion));
        let (member, at) = (self.1.clone(), system_clock()());
        let verdict = shardwise_control::Verdict::Prepared;
        Some(serde_json::to_vec(&shardwise_control::Answer { member, version, at, verdict }).expect("names"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_dead_or_slow_or_says_no_and_it_is_applied_nowhere() {
    let mut fleet = Fleet::start().await;
    let sick = Member::shard(&shard_name(7));
    let mut version = 0;
    for (how, reason) in [
        (None, "did not acknowledge within 2000 ms"),
        (Some(Sick::Slow), "did not acknowledge within 2000 ms"),
        (Some(Sick::AnswersForAnotherVersion), "answered for version"),
    ] {
        fleet.agents.remove(&sick);
        let _serving: Option<Serving> = match how {
            Some(how) => Some(
                fleet
                    .transport
                    .serve(&sick.endpoint(), Arc::new(SickShard(how, sick.clone())))
                    .await
                    .expect("it listens"),
            ),
            None => None,
        };
        let changed = fleet.split(&["shard-00=0.9,shard-07=0.1"]).await;
        version += 1;
        assert_eq!((changed.0.change.version, changed.0.outcome), (version, Outcome::Withdrawn), "{changed:?}");
        let reasons = changed.0.reasons.join("\n");
        assert!(reasons.contains("shard/shard-07") && reasons.contains(reason), "{reasons}");
        assert!(changed.table().contains("holds nowhere"), "{}", changed.table());
        // Also after the instant.
        tokio::time::sleep(Duration::from_millis(SETTINGS.margin_ms + 200)).await;
        fleet.all_serve(0).await;
    }
    fleet.start_agent(sick).await;
    // It says no: it uses three cores.
    let limits = ShardLimits {
        max_cpu_cores: 2.0,
        max_memory_mb: 4_000.0,
        max_concurrent_functions: None,
        max_requests_in_flight: None,
    };
    let options = LimitsOptions { shard: shard_name(7), limits, change: by_ann() };
    let changed = commands::limits(&fleet.plane, &self::fleet(), &options).await.expect("it can be proposed");
    assert_eq!(changed.0.outcome, Outcome::Withdrawn);
    assert!(changed.0.reasons[0].contains("3 cores in use, 2 allowed"), "{:?}", changed.0.reasons);
    assert!(changed.0.reasons[0].contains("migrate functions first"), "{:?}", changed.0.reasons);
    fleet.all_serve(0).await;
    // A promise that cannot be kept is not given.
    let file = fleet.folder.path().join(format!("{}.json", Member::shard(&shard_name(7)).endpoint()));
    std::fs::remove_file(&file).and_then(|()| std::fs::create_dir(&file)).expect("the folder is ours");
    let changed = fleet.split(&["shard-00=0.9,shard-07=0.1"]).await;
    assert_eq!(changed.0.outcome, Outcome::Withdrawn);
    assert!(changed.0.reasons[0].contains("shard-07 said no: its state cannot be kept"), "{:?}", changed.0.reasons);
    std::fs::remove_dir(&file).expect("it is empty");
    fleet.all_serve(0).await;
    assert!(fleet.agents[&Member::shard(&shard_name(7))].status().write_failures > 0);
    assert!(fleet.noted.capacities.lock().expect("not poisoned").is_empty());
    assert!(fleet.noted.events.lock().expect("not poisoned").is_empty(), "nothing was committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_alive_and_it_is_applied_everywhere_at_one_instant_also_by_a_router_that_was_restarted() {
    let mut fleet = Fleet::start().await;
    let changed = fleet.split(&["shard-00=0.75,shard-01=0.25"]).await;
    assert_eq!(changed.0.outcome, Outcome::Committed, "{}", changed.table());
    assert!(changed.0.acknowledgements.iter().all(|it| it.prepared_at.is_some()));
    let from = changed.0.change.effective_at;
    let just_before = Timestamp::from_nanos(from.nanos() - 1);
    let router = Member::router("router-1");
    // Between the commit and the instant.
    fleet.agents.remove(&router);
    fleet.start_agent(router.clone()).await;
    for (member, agent) in &fleet.agents {
        let splits = agent.splits();
        assert_eq!((splits.version(just_before), splits.version(from)), (0, 1), "{member}");
    }
    let options = SplitOptions { function: "price".to_owned(), steps: Vec::new(), change: by_ann() };
    let busy = commands::split(&fleet.plane, &self::fleet(), &options).await;
    let busy = busy.expect_err("version 1 does not hold yet");
    assert!(matches!(busy, ControlError::Refused(Refusal::Busy { version: 1, .. })), "{busy}");
    fleet.all_serve(1).await;
    let splits = fleet.agents[&router].splits();
    let pick = |draw| match splits.pick(&FunctionId::new("price"), from, draw, |_| true) {
        Pick::Shard(shard) => shard.to_string(),
        other => panic!("it has a split: {other:?}"),
    };
    assert_eq!([pick(0.7), pick(0.8)], [shard_name(0), shard_name(1)]);

    // After the instant, both sides at once: the coordinator's history and the router's file tell all.
    drop(fleet.agents.remove(&router));
    drop(fleet.plane);
    fleet.plane = start_plane(fleet.folder.path(), &fleet.transport, &fleet.noted).await;
    fleet.start_agent(router).await;
    fleet.all_serve(1).await;
    assert_eq!(*fleet.noted.events.lock().expect("not poisoned"), [1]);

    let limits = ShardLimits {
        max_cpu_cores: 3.0,
        max_memory_mb: 4_000.0,
        max_concurrent_functions: Some(5),
        max_requests_in_flight: None,
    };
    let options = LimitsOptions { shard: shard_name(2), limits, change: by_ann() };
    let changed = commands::limits(&fleet.plane, &self::fleet(), &options).await.expect("it can be proposed");
    assert_eq!(changed.0.outcome, Outcome::Committed, "{}", changed.table());
    fleet.all_serve(2).await;
    let capacities = || fleet.noted.capacities.lock().expect("not poisoned").clone();
    eventually(|| capacities() == BTreeMap::from([(ShardId::new("shard-02"), 3.0)])).await;

    let options = RollbackOptions { to: 0, change: by_ann() };
    let changed = commands::rollback(&fleet.plane, &self::fleet(), &options).await.expect("it can be proposed");
    assert_eq!((changed.0.change.version, changed.0.outcome), (3, Outcome::Committed), "{}", changed.table());
    fleet.all_serve(3).await;
    eventually(|| capacities().is_empty()).await;
    let list = commands::history(fleet.folder.path(), 2).expect("there is one");
    assert_eq!(list.changes.iter().map(|entry| entry.change.version).collect::<Vec<_>>(), [3, 2]);
    let table = list.table();
    for part in ["back to version 0", "limits shard-02: 3 cores, 4000 MB", "committed", "ann"] {
        assert!(table.contains(part), "'{part}' is not in\n{table}");
    }
    let unknown = RollbackOptions { to: 99, change: by_ann() };
    let unknown = commands::rollback(&fleet.plane, &self::fleet(), &unknown).await.expect_err("there is none");
    assert!(matches!(unknown, ControlError::NoSuchVersion(99)), "{unknown}");
}

async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never holds");
}
