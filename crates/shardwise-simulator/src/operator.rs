//! Someone who moves the furniture while a run goes on: hears what routers hear, looks now and then, and gives orders,
//! which hold everywhere at one instant a while later, as they do in a real fleet.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use shardwise_types::{DirectiveRecord, FunctionId, HistoryRecord, Placements, Residence, ShardId, Timestamp};

use crate::engine::{Flow, Simulation};
use crate::events::Event;
use crate::shard::nanos;

/// What an operator may want.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Routers send a function elsewhere while they can.
    Avoid(Residence),
    /// They need not any more.
    Return(Residence),
    /// The shard loads a function, which costs it core time and memory, and keeps it; routers count on that.
    KeepWarm(Residence),
    /// It is unloaded again when it is not used.
    LetCool(Residence),
    /// A shard that has not joined the fleet ([`FaultKind::Absent`](crate::FaultKind::Absent)) boots and joins it; one that
    /// is drained is used again.
    Join(ShardId),
    /// The shard gets nothing new while others can take it.
    Drain(ShardId),
}

/// Watches a run and gives orders.
pub trait Operator {
    /// Hears what the routers hear, in the order (`known_at`, `sequence`).
    fn hear(&mut self, record: &HistoryRecord);

    /// Gives orders; asked every [`look_ms`](Operations::look_ms). Orders that name what the world does not have, or what
    /// holds already, do nothing.
    fn look(&mut self, now: Timestamp) -> Vec<Order>;
}

/// An operator and how long it takes until what it wants is so.
pub struct Operations<'a> {
    /// Who gives orders.
    pub operator: &'a mut dyn Operator,
    /// Time between looks, in ms, 1 or more.
    pub look_ms: f64,
    /// From an order to the instant at which it holds for all, in ms: all agree first.
    pub lead_ms: f64,
    /// From then until a shard that boots has joined, in ms.
    pub boot_ms: f64,
}

impl<'a> Operations<'a> {
    /// A look a minute; ten seconds until all have agreed, and half a minute to boot.
    pub fn new(operator: &'a mut dyn Operator) -> Self {
        Self { operator, look_ms: 60_000.0, lead_ms: 10_000.0, boot_ms: 30_000.0 }
    }
}

/// What was ordered and is not yet so, and what holds.
#[derive(Default)]
pub(crate) struct Standing {
    under_way: Vec<Vec<Order>>,
    avoided: BTreeSet<Residence>,
    warm: BTreeSet<Residence>,
    drained: BTreeSet<ShardId>,
}

impl Simulation<'_> {
    /// Hands a record to whoever listens.
    pub(crate) fn hear(&mut self, record: &HistoryRecord) {
        if let Some(operations) = &mut self.operations {
            operations.operator.hear(record);
        }
    }

    /// The first look is a whole interval after the start.
    pub(crate) fn begin_operations(&mut self) {
        if let Some(operations) = &self.operations {
            self.events.push(nanos(operations.look_ms.max(1.0)), Event::Look(0));
        }
    }

    pub(crate) fn look(&mut self) {
        let now = self.at(self.now);
        let Some(operations) = &mut self.operations else { return };
        let orders = operations.operator.look(now);
        self.events.push(self.now + nanos(operations.look_ms.max(1.0)), Event::Look(0));
        if !orders.is_empty() {
            let batch = self.standing.under_way.len() as u32;
            self.events.push(self.now + nanos(operations.lead_ms), Event::Obey(batch));
            self.standing.under_way.push(orders);
        }
    }

    /// A batch of orders holds from now on, for all.
    pub(crate) fn obey(&mut self, batch: usize) -> Flow {
        for order in std::mem::take(&mut self.standing.under_way[batch]) {
            match order {
                Order::Avoid(pair) => drop(self.standing.avoided.insert(pair)),
                Order::Return(pair) => drop(self.standing.avoided.remove(&pair)),
                Order::KeepWarm(pair) => self.keep_warm(pair),
                Order::LetCool(pair) => self.let_cool(&pair),
                Order::Drain(shard) => drop(self.standing.drained.insert(shard)),
                Order::Join(shard) => self.join(&shard),
            }
        }
        let Standing { avoided, warm, drained, .. } = &self.standing;
        let placements = Arc::new(Placements::new(avoided.clone(), warm.clone(), drained.clone()));
        let now = self.at(self.now);
        self.routers.iter_mut().for_each(|router| router.follow(&placements, now));
        self.tell_directive(&placements)
    }

    /// Each router's history says what it follows from now on.
    fn tell_directive(&mut self, placements: &Placements) -> Flow {
        if !self.records {
            return ControlFlow::Continue(());
        }
        let now = self.at(self.now);
        let world = self.world;
        for router in &world.routers {
            let record = DirectiveRecord {
                sequence: self.next_record(),
                event_at: now,
                known_at: now,
                router: router.id.clone(),
                placements: placements.clone(),
                gone: Vec::new(),
                resized: Default::default(),
            };
            self.record(HistoryRecord::Directive(Box::new(record)))?;
        }
        ControlFlow::Continue(())
    }

    fn keep_warm(&mut self, pair: Residence) {
        let Some((function, shard)) = self.find(&pair) else { return };
        if self.standing.warm.insert(pair) && self.shards[shard].pin(self.now, function) {
            self.shards[shard].charge(nanos(self.world.functions[function as usize].load_ms));
        }
    }

    fn let_cool(&mut self, pair: &Residence) {
        let Some((function, shard)) = self.find(pair) else { return };
        if self.standing.warm.remove(pair) {
            self.shards[shard].unpin(self.now, function);
        }
    }

    fn join(&mut self, shard: &ShardId) {
        self.standing.drained.remove(shard);
        let boot_ms = self.operations.as_ref().map_or(0.0, |operations| operations.boot_ms);
        if let Some(shard) = self.position(shard) {
            let at = self.now + nanos(boot_ms);
            self.shards[shard].join(at);
        }
    }

    fn position(&self, shard: &ShardId) -> Option<usize> {
        self.world.shards.iter().position(|spec| spec.id == *shard)
    }

    fn find(&self, pair: &Residence) -> Option<(u32, usize)> {
        let is_it = |id: &FunctionId| *id == pair.function;
        let function = self.world.functions.iter().position(|spec| is_it(&spec.id))?;
        Some((function as u32, self.position(&pair.shard)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shardwise_policies::by_name;

    use super::*;
    use crate::conformance::start;
    use crate::*;

    /// Gives its orders at one look, and counts what it hears.
    #[derive(Default)]
    struct Scripted {
        orders: BTreeMap<u32, Vec<Order>>,
        looks: u32,
        heard: Vec<HistoryRecord>,
    }

    impl Operator for Scripted {
        fn hear(&mut self, record: &HistoryRecord) {
            self.heard.push(record.clone());
        }

        fn look(&mut self, _now: Timestamp) -> Vec<Order> {
            self.looks += 1;
            self.orders.remove(&self.looks).unwrap_or_default()
        }
    }

    const LOOK_MS: f64 = 1_000.0;
    const LEAD_MS: f64 = 500.0;
    const BOOT_MS: f64 = 2_000.0;

    fn world() -> (WorldSpec, Workload) {
        let world = WorldSpec::generate(3, &FleetOptions { shards: 5, ..FleetOptions::default() });
        let workload = Workload::generate(&world, 4, &WorkloadOptions::new(start(), 20_000.0, 0.4)).unwrap();
        (world, workload)
    }

    /// Plays with orders at the second look, which hold from 2.5 s on.
    fn play(world: &WorldSpec, workload: &Workload, orders: Vec<Order>) -> (RunSummary, Scripted) {
        let mut operator = Scripted { orders: [(2, orders)].into(), ..Scripted::default() };
        let policies = world.routers.iter().map(|_| by_name("sed_tab", world.timing.runtime()).unwrap()).collect();
        let operations =
            Operations { look_ms: LOOK_MS, lead_ms: LEAD_MS, boot_ms: BOOT_MS, ..Operations::new(&mut operator) };
        let options = SimulateOptions::default();
        let run = simulate_operated(world, workload, 1, policies, &mut NoRecorder, &options, Some(operations)).unwrap();
        (run, operator)
    }

    /// Decisions that no hard rule confines to a few shards, as (ms since the start, function, shard).
    fn decisions(heard: &[HistoryRecord]) -> impl Iterator<Item = (f64, &FunctionId, &ShardId)> {
        heard.iter().filter_map(|record| match record {
            HistoryRecord::Decision(it) => {
                let request = &it.request;
                let is_small = request.amount_usd.is_none_or(|amount| amount.usd() < 1e4);
                let is_free = request.residency.is_none() && is_small;
                is_free.then_some((it.known_at.millis_since(start()), &request.function, &it.shard))
            }
            _ => None,
        })
    }

    #[test]
    fn an_operator_who_orders_nothing_changes_nothing() {
        let (world, workload) = world();
        let (watched, operator) = play(&world, &workload, Vec::new());
        let policies = world.routers.iter().map(|_| by_name("sed_tab", world.timing.runtime()).unwrap()).collect();
        let mut kept = KeepAll::default();
        let alone = simulate(&world, &workload, 1, policies, &mut kept).unwrap();
        assert_eq!(watched, alone);
        assert_eq!(operator.heard, kept.records, "it hears the history");
        assert!(operator.looks >= 20);
    }

    #[test]
    fn orders_hold_for_all_from_one_instant_on() {
        let (world, workload) = world();
        let (_, before) = play(&world, &workload, Vec::new());
        let mut counts: BTreeMap<(FunctionId, ShardId), u32> = BTreeMap::new();
        decisions(&before.heard).for_each(|(_, f, s)| *counts.entry((f.clone(), s.clone())).or_default() += 1);
        let ((function, shard), _) = counts.iter().max_by_key(|(_, count)| **count).unwrap();
        let drained = world.shards.iter().map(|spec| &spec.id).find(|id| *id != shard).unwrap();
        let pair = Residence::new(function.clone(), shard.clone());
        let (_, after) = play(&world, &workload, vec![Order::Avoid(pair), Order::Drain(drained.clone())]);
        let at_ms = 2.0 * LOOK_MS + LEAD_MS;
        let disobeys = |(_, f, s): &(f64, &FunctionId, &ShardId)| (*f == function && *s == shard) || *s == drained;
        assert!(decisions(&after.heard).any(|it| it.0 < at_ms && disobeys(&it)));
        assert!(!decisions(&after.heard).any(|it| it.0 >= at_ms && disobeys(&it)));
        assert!(decisions(&after.heard).any(|(ms, f, _)| ms >= at_ms && f == function), "it runs elsewhere");
    }

    #[test]
    fn what_is_kept_warm_is_not_cold_and_takes_memory() {
        let (mut world, workload) = world();
        world.timing.warm_ttl_ms = 300.0;
        let cold = |operator: &Scripted| {
            let is_cold = |record: &&HistoryRecord| match record {
                HistoryRecord::Outcome(it) => it.response.cold && it.known_at.millis_since(start()) > 3_000.0,
                _ => false,
            };
            operator.heard.iter().filter(is_cold).count()
        };
        let pairs = |world: &WorldSpec| -> Vec<Order> {
            let on = |shard: &ShardSpec| {
                let keep =
                    |function: &FunctionSpec| Order::KeepWarm(Residence::new(function.id.clone(), shard.id.clone()));
                world.functions.iter().map(keep).collect::<Vec<_>>()
            };
            world.shards.iter().flat_map(on).collect()
        };
        let (_, without) = play(&world, &workload, Vec::new());
        let (_, with) = play(&world, &workload, pairs(&world));
        assert!(cold(&without) > 100, "{}", cold(&without));
        assert_eq!(cold(&with), 0);
        let memory = |operator: &Scripted| {
            let of = |record: &HistoryRecord| match record {
                HistoryRecord::Report(it) if it.report.event_at.millis_since(start()) > 3_000.0 => it.report.memory,
                _ => 0.0,
            };
            operator.heard.iter().map(of).sum::<f32>()
        };
        assert!(memory(&with) > 1.5 * memory(&without));
    }

    #[test]
    fn an_absent_shard_joins_when_it_has_booted() {
        let (mut world, workload) = world();
        let absent = Fault { from_ms: 0.0, until_ms: 1e9, kind: FaultKind::Absent };
        world.shards[1].faults = vec![absent];
        let (_, without) = play(&world, &workload, Vec::new());
        let id = &world.shards[1].id;
        assert!(!decisions(&without.heard).any(|(_, _, shard)| shard == id));
        let (_, with) = play(&world, &workload, vec![Order::Join(id.clone())]);
        let first = decisions(&with.heard).find(|(_, _, shard)| *shard == id).expect("it joined").0;
        assert!((2.0 * LOOK_MS + LEAD_MS + BOOT_MS..7_000.0).contains(&first), "{first}");
    }

    #[test]
    fn orders_for_what_is_not_there_do_nothing() {
        let (world, workload) = world();
        let nowhere = || Residence::new("no_function", "no-shard");
        let orders = vec![
            Order::Avoid(nowhere()),
            Order::Return(nowhere()),
            Order::KeepWarm(nowhere()),
            Order::LetCool(nowhere()),
            Order::Join("no-shard".into()),
            Order::Drain("no-shard".into()),
        ];
        assert_eq!(play(&world, &workload, orders).0, play(&world, &workload, Vec::new()).0);
    }
}
