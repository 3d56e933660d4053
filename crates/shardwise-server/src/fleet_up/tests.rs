//! Fleets of real processes. A process of the fleet is this test program again, told to run [`a_shard`] alone.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::mpsc;

use super::*;
use crate::shard::Envelope;

const OPTIONS: &str = "SHARDWISE_TEST_SHARD";
const FLEET: &str = "SHARDWISE_TEST_FLEET";

/// This program, running one of its tests with a path in a variable.
fn this_test(test: &str, variable: &str, path: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", &format!("fleet_up::tests::{test}"), "--nocapture"]).env(variable, path);
    Ok(command)
}

fn shard_command(options: &Path) -> io::Result<Command> {
    this_test("a_shard", OPTIONS, options)
}

/// Not a test but a process of a fleet, when it is started as one.
#[test]
fn a_shard() {
    let Some(path) = std::env::var_os(OPTIONS) else { return };
    let options: ShardOptions = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    if let Err(error) = crate::shard::run(&options, |_: &Envelope| (), &AtomicBool::new(false), |_| ()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// Not a test but a process that runs a fleet until it is killed, when it is started as one.
#[test]
fn a_fleet() {
    let Some(path) = std::env::var_os(FLEET) else { return };
    let options = RunOptions { directory: Path::new(&path), restart: true };
    run(&plan(3, &[]), &options, &shard_command, &AtomicBool::new(false), &mut |_| ()).unwrap();
}

/// Shards on a host of the loopback network that no other test has: nobody else takes a port between the moment that it is found
/// free and the one that a shard listens there, or while a shard is dead.
fn plan(shards: usize, faults: &[(&str, &str)]) -> FleetPlan {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let [a, b, _, _] = std::process::id().to_le_bytes();
    let host = Ipv4Addr::new(127, 1 + a % 254, b, HOSTS.fetch_add(1, Relaxed)).into();
    let faults = faults.iter().map(|(shard, fault)| ((*shard).into(), fault.parse().unwrap())).collect();
    FleetPlan::new(&FleetOptions { shards, faults, host, ..FleetOptions::default() }).unwrap()
}

fn is_alive(shard: &FleetShard) -> bool {
    is_ready(&ureq::Agent::new_with_defaults(), &shard.address, &shard.id)
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = now() + READY_WITHIN;
    while !condition() {
        assert!(now() < deadline, "{what}");
        thread::sleep(LOOK_EVERY);
    }
}

fn read(directory: &Path) -> Option<FleetFile> {
    serde_json::from_str(&fs::read_to_string(directory.join(FLEET_FILE)).ok()?).ok()
}

#[test]
fn a_shard_that_dies_is_started_again_and_all_end_with_the_fleet() {
    let (folder, stop) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let (directory, stopped) = (folder.path().to_owned(), Arc::clone(&stop));
    let (send, events) = mpsc::channel();
    let fleet = thread::spawn(move || {
        let (plan, options) =
            (plan(3, &[("shard-aave-primary", "crash@1500")]), &RunOptions { directory: &directory, restart: true });
        run(&plan, options, &shard_command, &stopped, &mut |event| send.send(event.clone()).unwrap())
    });
    let FleetEvent::Ready(ready) = events.recv().unwrap() else { panic!("ready comes first") };
    assert!(ready.shards.len() == 3 && ready.shards.iter().all(is_alive));
    let FleetEvent::Died { shard, status, again_in } = events.recv().unwrap() else { panic!("it crashes") };
    assert!(shard.as_str() == "shard-aave-primary" && status.code() == Some(134) && again_in.is_some());
    let FleetEvent::Restarted { shard, pid } = events.recv().unwrap() else { panic!("it is started again") };
    assert_ne!(Some(pid), ready.shards[1].pid);
    wait_for("the file tells the new process", || read(folder.path()).unwrap().shards[1].pid == Some(pid));
    wait_for("it answers at its old address", || shard == ready.shards[1].id && is_alive(&ready.shards[1]));
    stop.store(true, Relaxed);
    fleet.join().unwrap().unwrap();
    assert!(!ready.shards.iter().any(is_alive), "none outlives the fleet");
}

#[test]
fn children_end_when_their_parent_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = this_test("a_fleet", FLEET, folder.path()).unwrap();
    let mut parent = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the fleet is ready", || read(folder.path()).is_some());
    let shards = read(folder.path()).unwrap().shards;
    assert!(shards.iter().all(is_alive));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("no shard outlives its parent", || !shards.iter().any(is_alive));
}

#[test]
fn a_fleet_that_cannot_start_says_which_shard_and_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let options = RunOptions { directory: folder.path(), restart: true };
    let mut plan = plan(2, &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    plan.shards[1].listen = taken.local_addr().unwrap();
    let said = folder.path().join("said");
    let heard = |options: &Path| -> io::Result<Command> {
        let mut command = shard_command(options)?;
        command.stderr(fs::File::options().append(true).create(true).open(&said)?);
        Ok(command)
    };
    let error = run(&plan, &options, &heard, &AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("shard-aave-primary ended before it was ready"), "{error}");
    assert!(matches!(error, FleetError::Taken { address, .. } if address == plan.shards[1].listen), "{error}");
    let said = fs::read_to_string(&said).unwrap();
    assert!(said.contains(&plan.shards[1].listen.to_string()) && !said.contains("panicked"), "{said}");
    assert!(read(folder.path()).is_none());
    let error = run(&plan, &options, &|_| Ok(Command::new("/no/such/program")), &AtomicBool::new(false), &mut |_| ());
    assert!(error.unwrap_err().to_string().contains("cannot start shard-general"));
}
