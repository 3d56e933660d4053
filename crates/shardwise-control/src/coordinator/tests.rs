use super::*;
use crate::{TrafficSplit, Verdict};
use shardwise_types::{FunctionId, ShardId};

fn at(ms: u64) -> Timestamp {
    later(Timestamp::from_nanos(1_000_000_000_000), ms)
}

fn members() -> [Member; 3] {
    [Member::shard("a"), Member::shard("b"), Member::router("r")]
}

fn proposal() -> Proposal {
    let split = TrafficSplit::of([(ShardId::new("a"), 1.0)]).expect("it is right");
    let what = What::Split { function: FunctionId::new("f"), split };
    Proposal { author: "ann".to_owned(), why: "a test".to_owned(), what, from_version: None }
}

fn fresh() -> Coordinator {
    Coordinator::new(Settings::default(), &[]).expect("nothing contradicts itself")
}

fn answer(member: &Member, version: u64, ms: u64, verdict: Verdict) -> Answer {
    Answer { member: member.clone(), version, at: at(ms), verdict }
}

/// A coordinator with its history, as of a proposal at 0 ms.
struct Rig {
    it: Coordinator,
    history: Vec<Record>,
    sent: Vec<(Member, Command)>,
    published: u32,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { it: fresh(), history: Vec::new(), sent: Vec::new(), published: 0 };
        let (version, outputs) = rig.it.propose(at(0), proposal(), &members()).expect("it is right");
        assert_eq!(version, 1);
        rig.take(outputs);
        rig
    }

    fn take(&mut self, outputs: Vec<Output>) {
        self.sent.clear();
        for output in outputs {
            match output {
                Output::Record(record) => self.history.push(record),
                Output::Send { to, command } => self.sent.push((to, command)),
                Output::Publish(_) => self.published += 1,
            }
        }
    }

    fn tick(&mut self, ms: u64) {
        let outputs = self.it.tick(at(ms));
        self.take(outputs);
    }

    fn all_say(&mut self, ms: u64, verdict: &Verdict) {
        for member in members() {
            let outputs = self.it.answer(at(ms), &answer(&member, 1, ms, verdict.clone()));
            self.take(outputs);
        }
    }

    fn restart(&mut self) {
        self.it = Coordinator::new(Settings::default(), &self.history).expect("its own history");
    }

    fn last(&self) -> &Record {
        self.history.last().expect("at least the proposal")
    }
}

#[test]
fn all_agree_and_it_is_committed_published_and_settled() {
    let mut rig = Rig::new();
    assert!(matches!(rig.last(), Record::Proposed { change, .. } if change.effective_at == at(10_000)));
    assert_eq!(rig.sent.len(), 3);
    rig.all_say(100, &Verdict::Prepared);
    assert!(matches!(rig.last(), Record::Committed { version: 1, .. }));
    assert_eq!((rig.sent.len(), rig.published), (3, 1));
    assert_eq!((rig.it.current(at(9_999)).version, rig.it.current(at(10_000)).version), (0, 1));
    rig.all_say(200, &Verdict::Committed);
    assert!(matches!(rig.last(), Record::Settled { unacknowledged, .. } if unacknowledged.is_empty()));
    assert_eq!(rig.it.next_tick(), None);
    // Settled, but not in force: a restart in between must not bring it forward.
    rig.restart();
    assert_eq!((rig.it.current(at(9_999)).version, rig.it.current(at(10_000)).version), (0, 1));
    let busy = rig.it.propose(at(9_999), proposal(), &members()).expect_err("1 does not hold yet");
    assert!(busy.to_string().contains("does not hold yet"), "{busy}");
    let busy = rig.it.propose(at(10_499), proposal(), &members()).expect_err("some clocks are behind");
    assert!(busy.to_string().contains("has just taken effect"), "{busy}");
    let (version, _) = rig.it.propose(at(10_500), proposal(), &members()).expect("it holds");
    assert_eq!(version, 2);
}

#[test]
fn silence_a_no_and_wrong_answers_withdraw_it_with_reasons() {
    let [a, b, r] = members();
    let no = Verdict::Refused { why: "no room".to_owned() };
    for (third, ms, reason) in [
        (None, 5_001, "router/r did not acknowledge within 5000 ms"),
        (Some(answer(&r, 1, 100, no)), 100, "router/r said no: no room"),
        (Some(answer(&r, 2, 100, Verdict::Prepared)), 5_001, "router/r answered for version 2"),
        (Some(answer(&r, 1, 900, Verdict::Prepared)), 100, "router/r said no: its clock says"),
        (Some(answer(&Member::router("x"), 1, 100, Verdict::Prepared)), 5_001, "router/r did not acknowledge"),
    ] {
        let mut rig = Rig::new();
        for answer in [Some(answer(&a, 1, 50, Verdict::Prepared)), Some(answer(&b, 1, 60, Verdict::Prepared)), third] {
            let outputs = answer.map(|answer| rig.it.answer(at(100), &answer)).unwrap_or_default();
            rig.take(outputs);
        }
        if ms > 5_000 {
            rig.tick(5_000);
            assert!(matches!(rig.last(), Record::Proposed { .. }), "until the last moment: {:?}", rig.last());
            rig.tick(ms);
        }
        let Record::Withdrawn { reasons, .. } = rig.last() else { panic!("{reason}: {:?}", rig.last()) };
        assert!(reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?} is not '{reason}'");
        assert!(rig.sent.iter().all(|(_, command)| matches!(command, Command::Withdraw { version: 1, .. })));
        assert_eq!((rig.sent.len(), rig.published), (3, 0));
        // Late promises change nothing any more.
        rig.all_say(5_500, &Verdict::Prepared);
        assert_eq!(rig.it.current(at(20_000)).version, 0);
        let (version, _) = rig.it.propose(at(5_600), proposal(), &members()).expect("it is decided");
        assert_eq!(version, 2, "no number is used twice");
    }
}

#[test]
fn the_same_answer_twice_counts_once() {
    let mut rig = Rig::new();
    let [a, b, _] = members();
    for member in [&a, &a, &b, &a] {
        let outputs = rig.it.answer(at(100), &answer(member, 1, 100, Verdict::Prepared));
        assert_eq!(outputs, [], "one is missing");
    }
}

#[test]
fn promises_that_come_together_too_late_are_withdrawn() {
    let mut rig = Rig::new();
    rig.all_say(5_001, &Verdict::Prepared);
    assert!(matches!(rig.last(), Record::Withdrawn { .. }), "{:?}", rig.last());
}

#[test]
fn only_what_is_missing_is_repeated_and_not_all_the_time() {
    let mut rig = Rig::new();
    let [a, ..] = members();
    let outputs = rig.it.answer(at(100), &answer(&a, 1, 100, Verdict::Prepared));
    rig.take(outputs);
    rig.tick(499);
    assert_eq!(rig.sent, []);
    rig.tick(500);
    assert_eq!(rig.sent.iter().map(|(to, _)| to.clone()).collect::<Vec<_>>(), members()[1..]);
    assert_eq!(rig.it.next_tick(), Some(at(1_000)));
}

#[test]
fn a_successor_withdraws_what_was_not_decided_and_repeats_what_was() {
    let mut rig = Rig::new();
    rig.restart();
    assert_eq!(rig.it.ask(at(50), &ask()).undecided, Some(1));
    rig.tick(100);
    assert!(matches!(rig.last(), Record::Withdrawn { reasons, .. } if reasons[0].contains("restarted")));
    assert_eq!(rig.sent.len(), 3);

    let mut rig = Rig::new();
    rig.all_say(100, &Verdict::Prepared);
    rig.restart();
    let truth = rig.it.ask(at(150), &ask());
    assert_eq!((truth.current.version, truth.pending.expect("1").configuration.version), (0, 1));
    rig.tick(200);
    assert_eq!(rig.published, 2, "at least once");
    assert!(rig.sent.iter().all(|(_, command)| *command == Command::Commit { version: 1 }));
    assert_eq!(rig.sent.len(), 3);
    rig.tick(20_001);
    assert!(matches!(rig.last(), Record::Settled { unacknowledged, .. } if unacknowledged.len() == 3));
    assert_eq!(rig.it.ask(at(20_002), &ask()).current.version, 1);
}

fn ask() -> Ask {
    Ask { member: Member::shard("a"), asked_at: at(0), serves: 0, standing: Standing::Unconfirmed { last: None } }
}

#[test]
fn what_nobody_could_want_is_refused_before_anybody_is_asked() {
    let stale = Proposal { from_version: Some(7), ..proposal() };
    let nameless = Proposal { author: " ".to_owned(), ..proposal() };
    let groundless = Proposal { why: String::new(), ..proposal() };
    for (proposal, members, part) in [
        (nameless, members().to_vec(), "author"),
        (groundless, members().to_vec(), "why"),
        (stale, members().to_vec(), "version 0 holds by now, and the change was made from 7"),
        (proposal(), Vec::new(), "there is no shard or router"),
        (proposal(), members()[1..].to_vec(), "'a' is not a shard of this fleet"),
    ] {
        let refusal = fresh().propose(at(0), proposal, &members).expect_err(part);
        assert!(refusal.to_string().contains(part), "{refusal}");
    }
    let mut rig = Rig::new();
    let busy = rig.it.propose(at(1), proposal(), &members()).expect_err("1 is open");
    assert!(busy.to_string().contains("change 1 is not decided"), "{busy}");
}

#[test]
fn a_history_that_contradicts_itself_is_refused() {
    let mut rig = Rig::new();
    rig.all_say(100, &Verdict::Prepared);
    let [proposed, committed] = rig.history.as_slice() else { panic!("two records") };
    for (records, number) in [
        (vec![committed.clone()], 1),
        (vec![proposed.clone(), proposed.clone()], 2),
        ([&rig.history[..], &rig.history[1..]].concat(), 3),
    ] {
        assert_eq!(Coordinator::new(Settings::default(), &records).expect_err("wrong").number, number, "{records:?}");
    }
}
