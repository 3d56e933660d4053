//! A fleet in virtual time: one coordinator, agents, their disks, their clocks, and a network that does its worst.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_control::{
    Agent, AgentState, Answer, Ask, Command, Coordinator, Member, Output, Proposal, Record, Settings, ShardUsage,
    Standing, Surroundings, TrafficSplit, Truth, What,
};
use shardwise_types::{FunctionId, ShardId, Timestamp};

/// Shards, and the last one is a router.
pub(crate) const MEMBERS: usize = 4;

const SETTINGS: Settings = Settings {
    lead_ms: 2_000,
    margin_ms: 1_000,
    lease_ms: 800,
    ask_every_ms: 200,
    repeat_every_ms: 150,
    clock_error_ms: 100,
};
const STEP_MS: u64 = 10;
const FAULTS_MS: u64 = 26_000;

#[derive(Debug, Clone)]
pub(crate) struct Crash {
    /// A member, or the coordinator when it is [`MEMBERS`].
    pub(crate) node: usize,
    pub(crate) at_ms: u64,
    pub(crate) for_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) member: usize,
    pub(crate) at_ms: u64,
    pub(crate) for_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// The longest delay of a message.
    pub(crate) delay_ms: u64,
    /// How probable it is that an agent says no.
    pub(crate) refusals: f64,
    /// Whether nodes die between any two of their acts.
    pub(crate) sudden_deaths: bool,
    pub(crate) crashes: Vec<Crash>,
    pub(crate) cuts: Vec<Cut>,
    /// When changes are proposed, and who is left out.
    pub(crate) changes: Vec<(u64, Option<usize>)>,
    /// Of the members and, last, the coordinator.
    pub(crate) clock_errors_ms: Vec<i64>,
}

/// How often what happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    committed: u32,
    withdrawn: u32,
    in_doubt: u32,
    unconfirmed: u32,
    certain: u32,
    missed_and_knew: u32,
    crashes_while_writing: u32,
    refusals: u32,
}

impl Seen {
    pub(crate) fn all(&self) -> [(&'static str, u32); 8] {
        [
            ("a commit", self.committed),
            ("a withdrawal", self.withdrawn),
            ("an agent in doubt", self.in_doubt),
            ("an unconfirmed agent", self.unconfirmed),
            ("a certain agent", self.certain),
            ("an agent that missed a change", self.missed_and_knew),
            ("a crash between two outputs", self.crashes_while_writing),
            ("a refusal", self.refusals),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.withdrawn += other.withdrawn;
        self.in_doubt += other.in_doubt;
        self.unconfirmed += other.unconfirmed;
        self.certain += other.certain;
        self.missed_and_knew += other.missed_and_knew;
        self.crashes_while_writing += other.crashes_while_writing;
        self.refusals += other.refusals;
    }
}

#[derive(Debug, Clone)]
enum Message {
    Command(Command),
    Answer(Answer),
    Ask(Ask),
    Truth(Truth),
}

struct InFlight {
    arrives_ms: u64,
    /// The member at the other end of the way from or to the coordinator.
    member: usize,
    message: Message,
}

struct Node {
    member: Member,
    agent: Option<Agent>,
    disk: AgentState,
}

/// Whoever is asked says no now and then: for usage there is none here.
struct Around(bool);

impl Surroundings for Around {
    fn usage(&self) -> Option<ShardUsage> {
        None
    }

    fn knows(&self, _shard: &ShardId) -> bool {
        !self.0
    }
}

pub(crate) struct World {
    schedule: Schedule,
    random: StdRng,
    now_ms: u64,
    healed: bool,
    nodes: Vec<Node>,
    coordinator: Option<Coordinator>,
    history: Vec<Record>,
    network: Vec<InFlight>,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(schedule: Schedule) -> Self {
        SETTINGS.check().expect("they hold");
        let node = |number: usize| {
            let name = format!("m{number}");
            let member = if number + 1 == MEMBERS { Member::router(&name) } else { Member::shard(&name) };
            Node { agent: None, disk: AgentState::default(), member }
        };
        let random = StdRng::seed_from_u64(schedule.seed);
        let nodes = (0..MEMBERS).map(node).collect();
        let (history, network, seen) = (Vec::new(), Vec::new(), Seen::default());
        Self { schedule, random, now_ms: 0, healed: false, nodes, coordinator: None, history, network, seen }
    }

    /// Lives through the schedule.
    pub(crate) fn run(&mut self) {
        while self.now_ms < FAULTS_MS {
            self.step();
        }
    }

    /// Commits and withdrawals.
    pub(crate) fn decided(&self) -> (u32, u32) {
        (self.seen.committed, self.seen.withdrawn)
    }

    /// Ends all faults, waits, and finds all members with the same configuration.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        let until = self.now_ms + 3 * SETTINGS.lead_ms + 2 * self.schedule.delay_ms;
        while self.now_ms < until {
            self.step();
        }
        let newest = self.decided_at(u64::MAX);
        for (number, node) in self.nodes.iter().enumerate() {
            let now = self.clock(number);
            let agent = node.agent.as_ref().expect("all are up");
            assert_eq!(agent.serving(now).version, newest, "{} did not catch up: {agent:?}", node.member);
            assert!(agent.standing(now).is_certain(), "{}: {:?}", node.member, agent.standing(now));
        }
        self.check_records();
    }

    fn step(&mut self) {
        self.crash_and_restart();
        self.propose();
        self.deliver();
        self.tick();
        self.check();
        self.now_ms += STEP_MS;
    }

    fn clock(&self, node: usize) -> Timestamp {
        let local_ms = 1_000_000 + self.now_ms as i64 + self.schedule.clock_errors_ms[node];
        Timestamp::from_nanos(local_ms * 1_000_000)
    }

    fn is_down(&self, node: usize) -> bool {
        let within = |crash: &Crash| (crash.at_ms..crash.at_ms + crash.for_ms).contains(&self.now_ms);
        !self.healed && self.schedule.crashes.iter().any(|crash| crash.node == node && within(crash))
    }

    fn crash_and_restart(&mut self) {
        for number in 0..MEMBERS {
            let is_down = self.is_down(number);
            let node = &mut self.nodes[number];
            match (is_down, &node.agent) {
                (true, Some(_)) => node.agent = None,
                (false, None) => node.agent = Some(Agent::new(node.member.clone(), SETTINGS, node.disk.clone())),
                _ => {}
            }
        }
        match (self.is_down(MEMBERS), &self.coordinator) {
            (true, Some(_)) => self.coordinator = None,
            (false, None) => {
                let coordinator = Coordinator::new(SETTINGS, &self.history);
                self.coordinator = Some(coordinator.expect("its own history is consistent"));
            }
            _ => {}
        }
    }

    fn propose(&mut self) {
        let due: Vec<Option<usize>> = self
            .schedule
            .changes
            .iter()
            .filter(|(at_ms, _)| *at_ms / STEP_MS == self.now_ms / STEP_MS)
            .map(|(_, without)| *without)
            .collect();
        let now = self.clock(MEMBERS);
        for without in due {
            let left = self.nodes.iter().enumerate().filter(|(number, _)| Some(*number) != without);
            let members: Vec<Member> = left.map(|(_, node)| node.member.clone()).collect();
            let shard = members.iter().find_map(Member::as_shard).expect("several shards").clone();
            let split = TrafficSplit::of([(shard, 1.0)]).expect("it is right");
            let what = What::Split { function: FunctionId::new("f"), split };
            let proposal = Proposal { author: "ann".to_owned(), why: "a test".to_owned(), what, from_version: None };
            let Some(coordinator) = &mut self.coordinator else { continue };
            // Another change may be open; then this one is not made.
            if let Ok((_, outputs)) = coordinator.propose(now, proposal, &members) {
                self.carry_out(outputs);
            }
        }
    }

    /// Does what the coordinator wants, unless it dies in between.
    fn carry_out(&mut self, outputs: Vec<Output>) {
        // Between a record and what must follow it: there an order that is wrong would show.
        let records = outputs.iter().any(|output| matches!(output, Output::Record(_)));
        let dies = records && self.schedule.sudden_deaths && !self.healed && self.random.random_bool(0.1);
        let done = if dies { self.random.random_range(0..=outputs.len()) } else { outputs.len() };
        for output in outputs.into_iter().take(done) {
            match output {
                Output::Record(record) => {
                    self.seen.committed += u32::from(matches!(record, Record::Committed { .. }));
                    self.seen.withdrawn += u32::from(matches!(record, Record::Withdrawn { .. }));
                    self.history.push(record);
                }
                Output::Send { to, command } => {
                    let member = self.nodes.iter().position(|node| node.member == to).expect("a member");
                    self.send(member, Message::Command(command));
                }
                Output::Publish(_) => {}
            }
        }
        if dies {
            self.seen.crashes_while_writing += 1;
            self.coordinator = None;
        }
    }

    fn send(&mut self, member: usize, message: Message) {
        let cut = |cut: &Cut| cut.member == member && (cut.at_ms..cut.at_ms + cut.for_ms).contains(&self.now_ms);
        if self.healed {
            self.network.push(InFlight { arrives_ms: self.now_ms + STEP_MS, member, message });
            return;
        }
        if self.schedule.cuts.iter().any(cut) || self.random.random_bool(self.schedule.loss) {
            return;
        }
        let copies = 1 + u32::from(self.random.random_bool(self.schedule.duplication));
        for _ in 0..copies {
            let arrives_ms = self.now_ms + self.random.random_range(1..=self.schedule.delay_ms);
            self.network.push(InFlight { arrives_ms, member, message: message.clone() });
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<InFlight> = self.network.extract_if(.., |it| it.arrives_ms <= now_ms).collect();
        for InFlight { member, message, .. } in due {
            match message {
                Message::Command(command) => self.command(member, &command),
                Message::Truth(truth) => {
                    let now = self.clock(member);
                    self.at_agent(member, |agent| agent.learn(now, &truth));
                }
                Message::Answer(answer) => {
                    let now = self.clock(MEMBERS);
                    let outputs = self.coordinator.as_mut().map(|it| it.answer(now, &answer)).unwrap_or_default();
                    self.carry_out(outputs);
                }
                Message::Ask(ask) => {
                    let now = self.clock(MEMBERS);
                    if let Some(truth) = self.coordinator.as_mut().map(|it| it.ask(now, &ask)) {
                        self.send(member, Message::Truth(truth));
                    }
                }
            }
        }
    }

    fn command(&mut self, member: usize, command: &Command) {
        let now = self.clock(member);
        let says_no = !self.healed && self.random.random_bool(self.schedule.refusals);
        let answer = self.at_agent(member, |agent| agent.handle(now, command, &Around(says_no)));
        if let Some(answer) = answer {
            self.seen.refusals += u32::from(matches!(answer.verdict, shardwise_control::Verdict::Refused { .. }));
            self.send(member, Message::Answer(answer));
        }
    }

    /// Lets an agent act and writes down its state before anything leaves it. Some die before that, some right after.
    fn at_agent<T>(&mut self, member: usize, act: impl FnOnce(&mut Agent) -> T) -> Option<T> {
        let dies = self.schedule.sudden_deaths && !self.healed && self.random.random_bool(0.001);
        let before_writing = self.random.random_bool(0.5);
        let node = &mut self.nodes[member];
        let result = act(node.agent.as_mut()?);
        if dies && before_writing {
            node.agent = None;
            return None;
        }
        node.disk = node.agent.as_ref()?.state().clone();
        if dies {
            node.agent = None;
            return None;
        }
        Some(result)
    }

    fn tick(&mut self) {
        for number in 0..MEMBERS {
            // Some sleep through their instant: what is served does not depend on ticks.
            if !self.healed && self.random.random_bool(0.5) {
                continue;
            }
            let now = self.clock(number);
            self.at_agent(number, |agent| agent.settle(now));
            if let Some(Some(ask)) = self.at_agent(number, |agent| agent.question(now)) {
                self.send(number, Message::Ask(ask));
            }
        }
        let now = self.clock(MEMBERS);
        let outputs = self.coordinator.as_mut().map(|it| it.tick(now)).unwrap_or_default();
        self.carry_out(outputs);
    }

    /// Version and instant of each commit of the history.
    fn commits(&self) -> impl Iterator<Item = (u64, Timestamp)> {
        let decided: BTreeSet<u64> = self
            .history
            .iter()
            .filter_map(|record| match record {
                Record::Committed { version, .. } => Some(*version),
                _ => None,
            })
            .collect();
        self.history.iter().filter_map(move |record| match record {
            Record::Proposed { change, .. } if decided.contains(&change.version) => {
                Some((change.version, change.effective_at))
            }
            _ => None,
        })
    }

    /// The version that holds at an instant of true time, by the history.
    fn decided_at(&self, now_ms: u64) -> u64 {
        let now = Timestamp::from_nanos((1_000_000 + now_ms.min(1 << 40) as i64) * 1_000_000);
        self.commits().filter(|(_, from)| *from <= now).map(|(version, _)| version).last().unwrap_or(0)
    }

    /// The invariant, at this instant of true time.
    fn check(&mut self) {
        let (early, late) =
            (self.now_ms.saturating_sub(SETTINGS.clock_error_ms), self.now_ms + SETTINGS.clock_error_ms);
        // Within the clocks' error of the instant, both versions are right.
        let right = [self.decided_at(early), self.decided_at(late)];
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(agent) = &node.agent else { continue };
            let now = self.clock(number);
            let (version, standing) = (agent.serving(now).version, agent.standing(now));
            assert!(version <= right[1], "{} serves {version} at {now}, which holds at most {}", node.member, right[1]);
            assert!(version == 0 || self.commits().any(|it| it.0 == version), "{version} was never decided");
            match standing {
                Standing::Certain => {
                    self.seen.certain += 1;
                    assert!(
                        right.contains(&version),
                        "{} is certain of {version}, not {right:?}: {agent:?}",
                        node.member
                    );
                }
                Standing::InDoubt { .. } => self.seen.in_doubt += 1,
                Standing::Unconfirmed { .. } => self.seen.unconfirmed += 1,
                Standing::Contradicted { .. } => panic!("there is one history: {agent:?}"),
            }
            self.seen.missed_and_knew += u32::from(!right.contains(&version) && !standing.is_certain());
        }
    }

    /// What was committed had all promises, in time.
    fn check_records(&self) {
        for record in &self.history {
            let Record::Committed { version, acknowledgements, at } = record else { continue };
            assert!(acknowledgements.iter().all(|it| it.prepared_at.is_some() && it.refused.is_none()), "{record:?}");
            let (_, from) = self.commits().find(|it| it.0 == *version).expect("it was proposed");
            assert!(from.millis_since(*at) >= SETTINGS.margin_ms as f64, "{version} was decided too late");
        }
    }
}
