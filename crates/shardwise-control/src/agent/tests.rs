use super::*;
use crate::{Pending, ShardLimits, TrafficSplit};
use shardwise_types::FunctionId;

const SETTINGS: Settings = Settings {
    lead_ms: 10_000,
    margin_ms: 5_000,
    lease_ms: 4_000,
    ask_every_ms: 1_000,
    repeat_every_ms: 500,
    clock_error_ms: 250,
};

struct Uses(Option<f64>);

impl Surroundings for Uses {
    fn usage(&self) -> Option<ShardUsage> {
        self.0.map(|cpu_cores| ShardUsage { cpu_cores, ..ShardUsage::default() })
    }

    fn knows(&self, shard: &ShardId) -> bool {
        matches!(shard.as_str(), "a" | "b")
    }
}

fn at(ms: u64) -> Timestamp {
    later(Timestamp::from_nanos(1_000_000_000_000), ms)
}

fn split(shard: &str) -> What {
    let split = TrafficSplit::of([(ShardId::new(shard), 1.0)]).expect("it is right");
    What::Split { function: FunctionId::new("f"), split }
}

fn limits(shard: &str, max_cpu_cores: f64) -> What {
    let limits =
        ShardLimits { max_cpu_cores, max_memory_mb: 1.0, max_concurrent_functions: None, max_requests_in_flight: None };
    What::Limits { shard: ShardId::new(shard), limits }
}

/// Proposed at 0 ms, due by 5,000, in force from 10,000.
fn change(version: u64, from_version: u64, what: What) -> Change {
    let (author, why) = ("ann".to_owned(), "a test".to_owned());
    Change { version, from_version, author, why, created_at: at(0), effective_at: at(10_000), what }
}

fn prepare(version: u64, from_version: u64) -> Command {
    Command::prepare(change(version, from_version, split("a")), at(5_000))
}

fn truth(asked_ms: u64, highest: u64, current: u64) -> Truth {
    let current = Configuration { version: current, ..Configuration::default() };
    Truth { asked_at: at(asked_ms), asked_serving: 0, highest, current, pending: None, undecided: None }
}

fn agent() -> Agent {
    Agent::new(Member::shard("a"), SETTINGS, AgentState::default())
}

fn verdict(agent: &mut Agent, ms: u64, command: &Command) -> Verdict {
    agent.handle(at(ms), command, &Uses(Some(2.0))).verdict
}

fn refusal(agent: &mut Agent, ms: u64, command: &Command) -> String {
    match verdict(agent, ms, command) {
        Verdict::Refused { why } => why,
        other => panic!("{command:?} was not refused: {other:?}"),
    }
}

#[test]
fn a_committed_change_holds_from_its_instant_whether_or_not_anybody_ticks() {
    let mut agent = agent();
    assert_eq!(verdict(&mut agent, 1, &prepare(1, 0)), Verdict::Prepared);
    assert_eq!(verdict(&mut agent, 2, &prepare(1, 0)), Verdict::Prepared, "the same again");
    let other = Command::prepare(change(1, 0, split("b")), at(5_000));
    assert!(refusal(&mut agent, 2, &other).contains("a fleet has one coordinator"));
    assert_eq!(verdict(&mut agent, 3, &Command::Commit { version: 1 }), Verdict::Committed);
    assert_eq!(agent.serving(at(9_999)).version, 0);
    assert_eq!(agent.serving(at(10_000)).version, 1);
    let restarted = Agent::new(Member::shard("a"), SETTINGS, agent.state().clone());
    assert_eq!(restarted.serving(at(10_000)).version, 1);
    agent.settle(at(10_000));
    assert_eq!((agent.state().applied.version, agent.state().prepared.is_none()), (1, true));
    assert_eq!(verdict(&mut agent, 10_001, &Command::Commit { version: 1 }), Verdict::Committed);
}

#[test]
fn without_a_decision_it_serves_the_version_before_and_says_so() {
    let mut agent = agent();
    agent.learn(at(9_000), &truth(9_000, 0, 0));
    assert_eq!(agent.standing(at(9_000)), Standing::Certain);
    let mut late = agent.clone();
    assert_eq!(verdict(&mut agent, 1, &prepare(1, 0)), Verdict::Prepared);
    let in_doubt = Standing::InDoubt { version: 1, since: at(10_000) };
    assert_eq!((agent.standing(at(9_999)), agent.standing(at(10_000))), (Standing::Certain, in_doubt));
    assert_eq!(agent.serving(at(10_000)).version, 0);
    // The decision comes late, or the answer says that there was another.
    assert_eq!(verdict(&mut agent.clone(), 11_000, &Command::Commit { version: 1 }), Verdict::Committed);
    agent.learn(at(11_000), &truth(10_500, 1, 0));
    assert_eq!((agent.standing(at(11_000)), agent.serving(at(11_000)).version), (Standing::Certain, 0));
    let why = refusal(&mut late, 5_001, &prepare(1, 0));
    assert!(why.contains("was due by"), "{why}");
}

#[test]
fn what_is_withdrawn_never_comes_back() {
    let withdraw = |version| Command::Withdraw { version, why: "no".to_owned() };
    let mut agent = agent();
    assert_eq!(verdict(&mut agent, 1, &withdraw(1)), Verdict::Withdrawn, "before the command to prepare it");
    assert!(refusal(&mut agent, 2, &prepare(1, 0)).contains("comes too late"));
    assert_eq!(verdict(&mut agent, 3, &prepare(2, 0)), Verdict::Prepared);
    assert_eq!(verdict(&mut agent, 4, &withdraw(2)), Verdict::Withdrawn);
    assert!(refusal(&mut agent, 5, &Command::Commit { version: 2 }).contains("not prepared here"));
    assert_eq!(agent.serving(at(20_000)).version, 0);
    assert_eq!(verdict(&mut agent, 6, &prepare(3, 0)), Verdict::Prepared);
    assert_eq!(verdict(&mut agent, 6, &Command::Commit { version: 3 }), Verdict::Committed);
    assert!(refusal(&mut agent, 7, &withdraw(3)).contains("is committed here"));
    assert!(refusal(&mut agent, 8, &prepare(4, 0)).contains("has not taken effect yet"));
    assert!(refusal(&mut agent, 9, &prepare(4, 3)).contains("but 0 is served here"));
}

#[test]
fn an_uncommitted_change_makes_room_for_one_on_the_same_version() {
    let mut agent = agent();
    assert_eq!(verdict(&mut agent, 1, &prepare(1, 0)), Verdict::Prepared);
    assert_eq!(verdict(&mut agent, 2, &prepare(2, 0)), Verdict::Prepared);
    assert!(refusal(&mut agent, 3, &prepare(1, 0)).contains("comes too late"));
    assert_eq!(agent.state().prepared.as_ref().expect("2").next.version, 2);
}

#[test]
fn limits_are_checked_where_they_hold_and_nowhere_else() {
    let command = |what| Command::prepare(change(1, 0, what), at(5_000));
    assert!(refusal(&mut agent(), 1, &command(limits("a", 1.5))).contains("2 cores in use, 1.5 allowed"));
    assert!(refusal(&mut agent(), 1, &command(limits("a", -1.0))).contains("maxCpuCores"));
    assert!(refusal(&mut agent(), 1, &command(limits("x", 8.0))).contains("'x' is not a shard"));
    assert!(refusal(&mut agent(), 1, &command(split("x"))).contains("'x' is not a shard"));
    for (what, usage) in [(limits("a", 2.0), Some(2.0)), (limits("b", 1.0), None), (split("a"), None)] {
        assert_eq!(agent().handle(at(1), &command(what), &Uses(usage)).verdict, Verdict::Prepared);
    }
    let unknown = agent().handle(at(1), &command(limits("a", 9.0)), &Uses(None)).verdict;
    assert!(matches!(unknown, Verdict::Refused { why } if why.contains("cannot be told")));
    let configuration = Configuration::default().after(&change(1, 0, limits("a", 1.0)));
    assert!(refusal(&mut agent(), 1, &command(What::Rollback { configuration })).contains("migrate functions first"));
}

#[test]
fn a_lease_ends_and_a_clock_that_is_set_back_does_not_prolong_it() {
    let mut agent = agent();
    assert_eq!(agent.standing(at(0)), Standing::Unconfirmed { last: None });
    agent.learn(at(700), &truth(600, 0, 0));
    let expired = Standing::Unconfirmed { last: Some(at(600)) };
    assert_eq!((agent.standing(at(4_600)), agent.standing(at(4_601))), (Standing::Certain, expired));
    assert_eq!(agent.standing(at(500)), expired, "the clock was set back");
    agent.learn(at(500), &truth(490, 0, 0));
    assert_eq!(agent.standing(at(500)), Standing::Certain);
    agent.learn(at(500), &truth(501, 0, 0));
    assert_eq!(agent.standing(at(4_491)), Standing::Unconfirmed { last: Some(at(490)) }, "no answer from the future");
}

#[test]
fn it_asks_at_its_start_now_and_then_and_at_once_when_it_has_missed_something() {
    let mut agent = agent();
    let ask = agent.question(at(0)).expect("at the start");
    assert_eq!((ask.asked_at, ask.serves, ask.standing), (at(0), 0, Standing::Unconfirmed { last: None }));
    assert_eq!(agent.question(at(999)), None);
    assert!(agent.question(at(1_000)).is_some());
    refusal(&mut agent, 1_001, &prepare(8, 7));
    assert!(agent.question(at(1_002)).is_some());
    assert!(agent.question(at(500)).is_some(), "a clock that is set back does not silence it");
}

#[test]
fn it_catches_up_from_the_coordinators_answer_and_old_answers_do_no_harm() {
    let mut agent = agent();
    let next = Configuration { version: 8, ..Configuration::default() };
    let pending = Some(Pending { effective_at: at(10_000), configuration: next });
    agent.learn(at(100), &Truth { pending, ..truth(90, 8, 7) });
    assert_eq!((agent.serving(at(9_999)).version, agent.serving(at(10_000)).version), (7, 8));
    agent.learn(at(110), &truth(80, 6, 6));
    assert_eq!((agent.serving(at(9_999)).version, agent.serving(at(10_000)).version), (7, 8));
    // An answer from before the proposal must not take the promise back.
    let mut promised = self::agent();
    assert_eq!(verdict(&mut promised, 1, &prepare(1, 0)), Verdict::Prepared);
    promised.learn(at(2), &truth(0, 0, 0));
    promised.learn(at(3), &Truth { undecided: Some(1), ..truth(2, 1, 0) });
    assert_eq!(promised.state().prepared.as_ref().expect("kept").next.version, 1);
}

#[test]
fn an_answer_that_overtakes_the_command_to_prepare_does_not_make_it_late() {
    let mut agent = agent();
    agent.learn(at(2), &Truth { undecided: Some(3), ..truth(1, 3, 0) });
    assert!(refusal(&mut agent, 3, &prepare(2, 0)).contains("comes too late"));
    assert_eq!(verdict(&mut agent, 3, &prepare(3, 0)), Verdict::Prepared);
}

#[test]
fn a_coordinator_that_has_lost_its_history_is_contradicted() {
    let state =
        AgentState { applied: Configuration { version: 5, ..Configuration::default() }, ..AgentState::default() };
    let mut agent = Agent::new(Member::router("r"), SETTINGS, state);
    agent.learn(at(1), &Truth { asked_serving: 5, ..truth(1, 2, 2) });
    assert_eq!((agent.standing(at(1)), agent.serving(at(1)).version), (Standing::Contradicted { coordinator: 2 }, 5));
    assert!(refusal(&mut agent, 2, &prepare(9, 2)).contains("but 5 is served here"));
    agent.learn(at(3), &Truth { asked_serving: 5, ..truth(3, 5, 5) });
    assert_eq!(agent.standing(at(3)), Standing::Certain);
}
