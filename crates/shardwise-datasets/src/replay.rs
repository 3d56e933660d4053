//! Replays a history: rebuilds, record by record in the total order, what each router knew at each of its decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_features::{
    DecisionContext, ImageError, RouterImage, RouterState, ServiceObservations, ServiceTable, Ticket,
};
use shardwise_types::{
    DecisionRecord, DirectiveRecord, FleetSnapshot, HistoryRecord, MarketRecord, MarketSnapshot, Network,
    OutcomeRecord, PlacementRequest, Placements, ReportRecord, Response, RouterId, ShardId, ShardSnapshot,
};

use crate::{DatasetError, Place};

/// All routers of a history at one instant of it.
///
/// Decisions that are open are remembered by id until their outcome comes. What it learns about service times is kept
/// as [`ServiceObservations`], so that a table can be fitted on what was known at any instant.
pub struct Replay {
    routers: BTreeMap<RouterId, RouterState>,
    /// What all routers heard at the same instant: they share one view but for where they stand.
    common: View,
    /// The views of routers that heard something at an instant of their own.
    own: BTreeMap<RouterId, View>,
    /// What each router was directed last.
    placements: BTreeMap<RouterId, Arc<Placements>>,
    table: Option<Arc<ServiceTable>>,
    open: FxHashMap<u64, OpenDecision>,
    observations: ServiceObservations,
}

/// The world as routers see it.
#[derive(Clone)]
struct View {
    fleet: FleetSnapshot,
    market: MarketSnapshot,
}

impl View {
    fn report(&mut self, record: &ReportRecord) {
        self.fleet.apply_report(record);
    }

    fn minute(&mut self, record: &MarketRecord) {
        self.market = MarketSnapshot { volatility: record.volatility_bp, trend: record.trend_bp };
    }

    fn save(&self) -> ViewImage {
        ViewImage { shards: self.fleet.shards.clone(), market: self.market }
    }

    fn restore(image: ViewImage, network: Network) -> Self {
        let router_region = network.default_region.clone();
        let fleet = FleetSnapshot { shards: image.shards, network, router_region, placements: Default::default() };
        Self { fleet, market: image.market }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct ViewImage {
    shards: Vec<ShardSnapshot>,
    market: MarketSnapshot,
}

#[derive(Clone, Serialize, Deserialize)]
struct OpenDecision {
    router: RouterId,
    shard: ShardId,
    #[serde(with = "request_image")]
    request: PlacementRequest,
    ticket: Ticket,
}

/// An outcome that found its decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The decision.
    pub decision_id: u64,
    /// Who decided.
    pub router: RouterId,
    /// What was asked.
    pub request: PlacementRequest,
    /// Where it ran.
    pub shard: ShardId,
    /// What the router remembered of it; of forecasts the history knows nothing.
    pub ticket: Ticket,
    /// What came back.
    pub response: Response,
}

/// A saved [`Replay`], the service table included.
#[derive(Clone, Serialize, Deserialize)]
pub struct ReplayImage {
    routers: Vec<(RouterId, RouterImage)>,
    common: ViewImage,
    own: BTreeMap<RouterId, ViewImage>,
    network: Network,
    placements: BTreeMap<RouterId, Placements>,
    table: Option<ServiceTable>,
    open: BTreeMap<u64, OpenDecision>,
    observations: ServiceObservations,
}

impl ReplayImage {
    /// Whether a replay can be restored from it.
    pub fn is_usable(&self) -> bool {
        self.routers.iter().all(|(_, router)| router.check().is_ok())
    }
}

impl Replay {
    /// Routers that have seen nothing, in a fleet of which nothing is known but the distances.
    pub fn new(network: Network) -> Self {
        let nothing = ViewImage { shards: Vec::new(), market: MarketSnapshot::default() };
        Self {
            routers: BTreeMap::new(),
            common: View::restore(nothing, network),
            own: BTreeMap::new(),
            placements: BTreeMap::new(),
            table: None,
            open: FxHashMap::default(),
            observations: ServiceObservations::default(),
        }
    }

    /// Sets the service table that decisions see from now on.
    pub fn set_table(&mut self, table: Option<Arc<ServiceTable>>) {
        self.table = table;
    }

    /// A router that is there before it decides: it hears reports from now on, where others do from their first decision on.
    pub fn introduce(&mut self, router: RouterId) {
        self.routers.entry(router).or_default();
    }

    /// What was seen of service times so far.
    pub fn observations(&self) -> &ServiceObservations {
        &self.observations
    }

    /// Whether a decision waits for its outcome.
    pub fn is_open(&self, decision_id: u64) -> bool {
        self.open.contains_key(&decision_id)
    }

    /// Where an open decision went.
    pub(crate) fn shard_of(&self, decision_id: u64) -> Option<&ShardId> {
        self.open.get(&decision_id).map(|open| &open.shard)
    }

    /// What the decision's router knows now: call it before [`Self::apply`] takes the decision in.
    pub fn context<'a>(&'a mut self, decision: &'a DecisionRecord) -> DecisionContext<'a> {
        let view = self.own.get_mut(&decision.router).unwrap_or(&mut self.common);
        view.fleet.router_region.clone_from(&decision.router_region);
        view.fleet.placements = self.placements.get(&decision.router).cloned().unwrap_or_default();
        DecisionContext {
            request: &decision.request,
            decided_at: decision.known_at,
            fleet: &view.fleet,
            router: self.routers.entry(decision.router.clone()).or_default(),
            market: &view.market,
            service_table: self.table.as_deref(),
        }
    }

    /// Takes in the next record. An outcome returns the decision that it answers.
    ///
    /// # Errors
    /// A decision whose id is open already or whose shard never reported, an outcome without an open decision. The
    /// place in the message is empty; [`crate::Records::place`] knows it.
    pub fn apply(&mut self, record: &HistoryRecord) -> Result<Option<Answered>, DatasetError> {
        match record {
            HistoryRecord::Decision(decision) => self.decide(decision)?,
            HistoryRecord::Outcome(outcome) => return self.answer(outcome).map(Some),
            // It decided nothing, so no router knew of it.
            HistoryRecord::Shadow(_) => {}
            HistoryRecord::Report(report) => {
                self.views(report.router.as_ref()).for_each(|view| view.report(report));
                let hear = |router: &RouterState| router.on_report(&report.shard, report.report.known_at);
                match &report.router {
                    Some(router) => hear(self.routers.entry(router.clone()).or_default()),
                    None => self.routers.values().for_each(hear),
                }
            }
            HistoryRecord::Market(minute) => self.views(minute.router.as_ref()).for_each(|view| view.minute(minute)),
            HistoryRecord::Directive(directive) => self.direct(directive),
        }
        Ok(None)
    }

    /// The views of those that hear something: a router, or all.
    fn views(&mut self, router: Option<&RouterId>) -> impl Iterator<Item = &mut View> {
        let Self { common, own, .. } = self;
        if let Some(router) = router {
            own.entry(router.clone()).or_insert_with(|| common.clone());
        }
        let is_all = router.is_none();
        let heard = own.iter_mut().filter(move |(name, _)| router.is_none_or(|router| router == *name));
        heard.map(|(_, view)| view).chain(is_all.then_some(common))
    }

    fn direct(&mut self, directive: &DirectiveRecord) {
        let DirectiveRecord { known_at, router, placements, gone, resized, .. } = directive;
        if !(gone.is_empty() && resized.is_empty()) {
            for view in self.views(Some(router)) {
                view.fleet.shards.retain(|shard| !gone.contains(&shard.id));
                resized.apply(&mut view.fleet);
            }
        }
        let before = self.placements.insert(router.clone(), Arc::new(placements.clone())).unwrap_or_default();
        self.routers.entry(router.clone()).or_default().on_placements(&before, placements, *known_at);
    }

    fn decide(&mut self, decision: &DecisionRecord) -> Result<(), DatasetError> {
        let decision_id = decision.decision_id;
        if self.open.contains_key(&decision_id) {
            return Err(DatasetError::DuplicateDecision { place: Place::default(), decision_id });
        }
        let context = self.context(decision);
        let chosen = context.fleet.position(&decision.shard).ok_or_else(|| unknown_shard(decision, &decision.shard))?;
        let ticket = context.router.on_dispatch(&context, chosen);
        let (router, shard) = (decision.router.clone(), decision.shard.clone());
        let request = decision.request.clone();
        self.open.insert(decision_id, OpenDecision { router, shard, request, ticket });
        Ok(())
    }

    fn answer(&mut self, outcome: &OutcomeRecord) -> Result<Answered, DatasetError> {
        let decision_id = outcome.decision_id;
        let Some(open) = self.open.remove(&decision_id) else {
            return Err(DatasetError::OutcomeWithoutDecision { place: Place::default(), decision_id });
        };
        let router = self.routers.get(&open.router).expect("a router that decided is known");
        router.on_response(&open.ticket, &outcome.response, outcome.known_at);
        self.observations.observe(&open.request, &open.shard, &outcome.response);
        let OpenDecision { router, shard, request, ticket } = open;
        Ok(Answered { decision_id, router, request, shard, ticket, response: outcome.response })
    }

    /// Saves everything, to go on from here another time.
    pub fn save(&self) -> ReplayImage {
        ReplayImage {
            routers: self.routers.iter().map(|(id, router)| (id.clone(), router.save())).collect(),
            common: self.common.save(),
            own: self.own.iter().map(|(router, view)| (router.clone(), view.save())).collect(),
            network: self.common.fleet.network.clone(),
            placements: self.placements.iter().map(|(id, held)| (id.clone(), Placements::clone(held))).collect(),
            table: self.table.as_deref().cloned(),
            open: self.open.iter().map(|(id, open)| (*id, open.clone())).collect(),
            observations: self.observations.clone(),
        }
    }

    /// Goes on from where [`Self::save`] left.
    ///
    /// # Errors
    /// When a router's image is damaged or was saved by another version.
    pub fn restore(image: ReplayImage) -> Result<Self, ImageError> {
        let router =
            |(id, router): &(RouterId, RouterImage)| RouterState::restore(router).map(|state| (id.clone(), state));
        Ok(Self {
            routers: image.routers.iter().map(router).collect::<Result<_, _>>()?,
            own: image.own.into_iter().map(|(id, view)| (id, View::restore(view, image.network.clone()))).collect(),
            common: View::restore(image.common, image.network),
            placements: image.placements.into_iter().map(|(id, held)| (id, Arc::new(held))).collect(),
            table: image.table.map(Arc::new),
            open: image.open.into_iter().collect(),
            observations: image.observations,
        })
    }
}

pub(crate) fn unknown_shard(decision: &DecisionRecord, shard: &ShardId) -> DatasetError {
    DatasetError::UnknownShard {
        place: Place::default(),
        decision_id: decision.decision_id,
        shard: shard.as_str().to_owned(),
    }
}

/// A request in binary files: the type itself is read from JSON and history rows only.
mod request_image {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use shardwise_types::{
        EventType, Exchange, FunctionId, MarketSnapshot, PlacementRequest, Priority, Protocol, Region, RiskLevel,
        Timestamp, TradingPair, Urgency, UsdAmount,
    };

    #[derive(Serialize, Deserialize)]
    struct Image {
        function: FunctionId,
        event_type: EventType,
        protocol: Protocol,
        trading_pair: TradingPair,
        exchange: Exchange,
        risk: RiskLevel,
        urgency: Urgency,
        priority: Priority,
        amount_usd: Option<f64>,
        data_complexity: f32,
        expected_compute_ms: Option<f32>,
        exchange_calls: u32,
        memory_mb: f32,
        residency: Option<Region>,
        event_at: Timestamp,
        market: Option<MarketSnapshot>,
    }

    pub(super) fn serialize<S: Serializer>(request: &PlacementRequest, serializer: S) -> Result<S::Ok, S::Error> {
        let request = request.clone();
        Image {
            function: request.function,
            event_type: request.event_type,
            protocol: request.protocol,
            trading_pair: request.trading_pair,
            exchange: request.exchange,
            risk: request.risk,
            urgency: request.urgency,
            priority: request.priority,
            amount_usd: request.amount_usd.map(UsdAmount::usd),
            data_complexity: request.data_complexity,
            expected_compute_ms: request.expected_compute_ms,
            exchange_calls: request.exchange_calls,
            memory_mb: request.memory_mb,
            residency: request.residency,
            event_at: request.event_at,
            market: request.market,
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PlacementRequest, D::Error> {
        let image = Image::deserialize(deserializer)?;
        let amount_usd = image.amount_usd.map(UsdAmount::new).transpose().map_err(serde::de::Error::custom)?;
        Ok(PlacementRequest {
            function: image.function,
            event_type: image.event_type,
            protocol: image.protocol,
            trading_pair: image.trading_pair,
            exchange: image.exchange,
            risk: image.risk,
            urgency: image.urgency,
            priority: image.priority,
            amount_usd,
            data_complexity: image.data_complexity,
            expected_compute_ms: image.expected_compute_ms,
            exchange_calls: image.exchange_calls,
            memory_mb: image.memory_mb,
            residency: image.residency,
            event_at: image.event_at,
            market: image.market,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{history, network};
    use shardwise_features::{DecisionFeatures, FeatureVector};
    use shardwise_types::Resized;
    use std::collections::BTreeSet;

    /// The bits of all feature vectors from a record on.
    fn features(replay: &mut Replay, records: &[HistoryRecord]) -> Vec<u32> {
        let mut bits = Vec::new();
        for record in records {
            if let HistoryRecord::Decision(decision) = record {
                let context = replay.context(decision);
                let features = DecisionFeatures::new(&context);
                for candidate in 0..context.fleet.shards.len() {
                    bits.extend(FeatureVector::extract(&features, candidate).as_slice().iter().map(|v| v.to_bits()));
                }
            }
            replay.apply(record).unwrap();
        }
        bits
    }

    #[test]
    fn a_saved_replay_goes_on_as_if_it_had_never_stopped() {
        let records = history("2026-01-05T12:00:00Z", 5.0, 300.0);
        let (first, second) = records.split_at(records.len() / 2);
        let mut replay = Replay::new(network());
        features(&mut replay, first);
        replay.set_table(Some(Arc::new(replay.observations().fit())));
        let bytes = postcard::to_stdvec(&replay.save()).unwrap();
        let mut restored = Replay::restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
        assert_eq!(features(&mut replay, second), features(&mut restored, second));
        assert_eq!(replay.observations(), restored.observations());
    }

    #[test]
    fn a_router_that_was_introduced_has_heard_the_reports_before_its_first_decision() {
        let records = history("2026-01-05T12:00:00Z", 1.0, 300.0);
        let first = records.iter().position(|record| matches!(record, HistoryRecord::Decision(_))).unwrap();
        let HistoryRecord::Decision(decision) = &records[first] else { unreachable!("it was just found") };
        let gap_ms = |is_introduced: bool| {
            let mut replay = Replay::new(network());
            if is_introduced {
                replay.introduce(decision.router.clone());
            }
            records[..first].iter().for_each(|record| _ = replay.apply(record).unwrap());
            replay.context(decision).router.report_gap_ms(&decision.shard)
        };
        assert_eq!(gap_ms(false), 0.0);
        assert!(gap_ms(true) > 0.0);
    }

    #[test]
    fn what_a_router_heard_at_a_time_of_its_own_is_its_own() {
        let records = history("2026-01-05T12:00:00Z", 5.0, 300.0);
        let routers: BTreeSet<RouterId> = records
            .iter()
            .filter_map(|record| match record {
                HistoryRecord::Decision(decision) => Some(decision.router.clone()),
                _ => None,
            })
            .collect();
        assert!(routers.len() > 1);
        // All hear all at one instant; said of each router apart, it is the same.
        let apart: Vec<HistoryRecord> = records
            .iter()
            .flat_map(|record| -> Vec<HistoryRecord> {
                let each = routers.iter().cloned().map(Some);
                match record {
                    HistoryRecord::Report(it) => {
                        let heard = |router| ReportRecord { router, ..ReportRecord::clone(it) };
                        each.map(|router| HistoryRecord::Report(Box::new(heard(router)))).collect()
                    }
                    HistoryRecord::Market(it) => {
                        each.map(|router| HistoryRecord::Market(MarketRecord { router, ..it.clone() })).collect()
                    }
                    _ => vec![record.clone()],
                }
            })
            .collect();
        assert!(apart.len() > records.len());
        let of = |records: &[HistoryRecord]| features(&mut Replay::new(network()), records);
        let together = of(&records);
        assert_eq!(of(&apart), together);
        // One router hears nothing from the middle on: others see what they saw.
        let (deaf, half) = (routers.first().unwrap(), apart.len() / 2);
        let heard = |(at, record): &(usize, &HistoryRecord)| match record {
            HistoryRecord::Report(it) => *at < half || it.router.as_ref() != Some(deaf),
            _ => true,
        };
        let without: Vec<HistoryRecord> =
            apart.iter().enumerate().filter(heard).map(|(_, record)| record.clone()).collect();
        let bits = of(&without);
        let decisions = || records.iter().filter(|it| matches!(it, HistoryRecord::Decision(_)));
        let each = together.len() / decisions().count();
        let differs = |wanted: &dyn Fn(&RouterId) -> bool| {
            decisions().enumerate().any(|(n, record)| {
                let HistoryRecord::Decision(decision) = record else { return false };
                wanted(&decision.router) && bits[n * each..][..each] != together[n * each..][..each]
            })
        };
        assert!(differs(&|router| router == deaf));
        assert!(!differs(&|router| router != deaf));
    }

    #[test]
    fn what_a_router_gave_up_is_gone_and_what_was_limited_is_smaller_until_they_report() {
        let records = history("2026-01-05T12:00:00Z", 3.0, 300.0);
        let first = records.iter().position(|record| matches!(record, HistoryRecord::Decision(_))).unwrap();
        let HistoryRecord::Decision(decision) = &records[first] else { unreachable!("it was just found") };
        let mut replay = Replay::new(network());
        records[..first].iter().for_each(|record| _ = replay.apply(record).unwrap());
        let before = replay.context(decision).fleet.clone();
        let [gone, limited] = [0, 1].map(|at| before.shards[at].id.clone());
        let directive = DirectiveRecord {
            sequence: 0,
            event_at: decision.known_at,
            known_at: decision.known_at,
            router: decision.router.clone(),
            placements: Placements::default(),
            gone: vec![gone.clone()],
            resized: Resized { shards: vec![limited.clone()], cores: vec![0.5], memory_mb: vec![64.0] },
        };
        replay.apply(&HistoryRecord::Directive(Box::new(directive))).unwrap();
        let seen = |replay: &mut Replay, decision: &DecisionRecord| {
            let fleet = replay.context(decision).fleet;
            (fleet.position(&gone).is_some(), fleet.position(&limited).map(|at| fleet.shards[at].shape.cores))
        };
        let usual = Some(before.shards[1].shape.cores);
        assert_eq!(seen(&mut replay, decision), (false, Some(0.5)));
        let of_other = DecisionRecord { router: "another".into(), ..DecisionRecord::clone(decision) };
        assert_eq!(seen(&mut replay, &of_other), (true, usual), "others know nothing of it");
        let reports = records[..first].iter().filter(|record| matches!(record, HistoryRecord::Report(_)));
        reports.for_each(|report| _ = replay.apply(report).unwrap());
        assert_eq!(seen(&mut replay, decision), (true, usual));
    }

    #[test]
    fn an_outcome_without_its_decision_is_named() {
        let mut records = history("2026-01-05T12:00:00Z", 1.0, 300.0);
        records.retain(|record| !matches!(record, HistoryRecord::Decision(decision) if decision.decision_id == 17));
        let mut replay = Replay::new(network());
        let error = records.iter().find_map(|record| replay.apply(record).err()).unwrap();
        assert!(matches!(error, DatasetError::OutcomeWithoutDecision { decision_id: 17, .. }), "{error}");
    }

    #[test]
    fn an_outcome_closes_its_decision() {
        let records = history("2026-01-05T12:00:00Z", 1.0, 300.0);
        let mut replay = Replay::new(network());
        for record in &records {
            let answered = replay.apply(record).unwrap();
            match record {
                HistoryRecord::Decision(decision) => assert!(replay.is_open(decision.decision_id)),
                HistoryRecord::Outcome(outcome) => {
                    assert_eq!(answered.unwrap().response, outcome.response);
                    assert!(!replay.is_open(outcome.decision_id));
                }
                _ => assert_eq!(answered, None),
            }
        }
    }
}
