//! Back to a decision: the history is replayed from where its routers began, and beside every router stands what decided for
//! it, which hears what it heard then, in the same order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use shardwise_datasets::{History, Replay};
use shardwise_features::{DecisionContext, Forecast, ServiceTable};
use shardwise_inference::{Placer, Revisited};
use shardwise_models::{ModelBundle, Registry};
use shardwise_policies::{Decision, Observed, Policy, Rules, Runtime, by_name, eligible};
use shardwise_types::{
    CostTerms, DecisionRecord, HistoryRecord, NoEligibleShard, RouterId, ShardPrediction, Timestamp,
};

use crate::arguments::ExplainArguments;
use crate::commands::placers::{MODEL_POLICY, placer};

/// The bundles that decided, by version; each is loaded when it is first needed.
pub(super) struct Models {
    registry: Option<Registry>,
    loaded: BTreeMap<String, Arc<ModelBundle>>,
}

impl Models {
    pub(super) fn open(options: &ExplainArguments) -> miette::Result<Self> {
        let open = |models| Registry::open(models, &options.name);
        let registry = options.models.as_deref().map(open).transpose().into_diagnostic()?;
        Ok(Self { registry, loaded: BTreeMap::new() })
    }

    fn version(&mut self, decision: &DecisionRecord, version: &str) -> miette::Result<Arc<ModelBundle>> {
        if let Some(bundle) = self.loaded.get(version) {
            return Ok(Arc::clone(bundle));
        }
        let id = decision.decision_id;
        let registry = self.registry.as_ref().ok_or_else(|| {
            let help = "name the folder of the models with --models, and their name with --name";
            miette!(help = help, "decision {id} was made with model {version}, which is needed to make it again")
        })?;
        let bundle = registry.load(version).map_err(|error| {
            let help =
                "name the models that held it then with --models, or bring it back with `shardwise models import`";
            miette!(help = help, "decision {id} was made with model {version}, which cannot be loaded: {error}")
        })?;
        let bundle = Arc::new(bundle);
        self.loaded.insert(version.to_owned(), Arc::clone(&bundle));
        Ok(bundle)
    }
}

/// What decides for a router.
pub(super) enum Decider {
    Placer(Box<Placer>),
    Policy(Box<dyn Policy>),
    /// Other software, of which no more is known than what it chose.
    Stranger,
}

impl Decider {
    fn of(policy: &str, runtime: Runtime) -> Self {
        match by_name(policy, runtime) {
            Some(known) => Self::Policy(known),
            None if policy == MODEL_POLICY => Self::Placer(Box::new(placer(None, runtime))),
            None => Self::Stranger,
        }
    }

    /// Takes the bundle that decides from now on, and tells which service table the decision sees.
    fn take(&mut self, bundle: Option<Arc<ModelBundle>>) -> Option<Arc<ServiceTable>> {
        match self {
            Self::Placer(placer) => {
                let wanted = bundle.as_ref().map(|bundle| bundle.version());
                if placer.model_version().as_deref() != wanted {
                    placer.swap_model(bundle);
                }
                placer.service_table()
            }
            Self::Policy(policy) => policy.service_table(),
            Self::Stranger => bundle.map(|bundle| bundle.service_table()),
        }
    }

    fn policy(&mut self) -> Option<&mut dyn Policy> {
        match self {
            Self::Placer(placer) => Some(&mut **placer),
            Self::Policy(policy) => Some(&mut **policy),
            Self::Stranger => None,
        }
    }
}

/// All routers of a history at one instant of it, with what decides for them.
pub(super) struct Travel {
    replay: Replay,
    models: Models,
    runtime: Runtime,
    deciders: BTreeMap<RouterId, BTreeMap<String, Decider>>,
    /// What was foretold of requests that are out.
    forecasts: HashMap<u64, Forecast>,
    /// Whether what happened before is left out.
    begins_late: bool,
    /// Decisions that no router is told of, because their shards were not known.
    left_out: HashSet<u64>,
}

impl Travel {
    /// Routers that have just been started, all at once.
    pub(super) fn begin(
        history: &History,
        routers: impl Iterator<Item = RouterId>,
        models: Models,
        runtime: Runtime,
        from: Option<Timestamp>,
    ) -> Self {
        let mut replay = Replay::new(history.network().clone());
        routers.for_each(|router| replay.introduce(router));
        Self {
            replay,
            models,
            runtime,
            deciders: BTreeMap::new(),
            forecasts: HashMap::new(),
            begins_late: from.is_some(),
            left_out: HashSet::new(),
        }
    }

    pub(super) fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Comes to a decision, which is not taken in yet; `None` when its shard has not reported before.
    pub(super) fn arrive<'a>(&'a mut self, decision: &'a DecisionRecord) -> miette::Result<Option<Scene<'a>>> {
        let Self { replay, models, runtime, deciders, .. } = self;
        let version = decision.model_version.as_deref();
        let bundle = version.map(|version| models.version(decision, version)).transpose()?;
        let of_router = deciders.entry(decision.router.clone()).or_default();
        let decider =
            of_router.entry(decision.policy.clone()).or_insert_with(|| Decider::of(&decision.policy, *runtime));
        replay.set_table(decider.take(bundle));
        let context = replay.context(decision);
        let Some(chosen) = context.fleet.position(&decision.shard) else {
            self.left_out.insert(decision.decision_id);
            return Ok(None);
        };
        Ok(Some(Scene { decision, context, chosen, decider }))
    }

    /// Remembers what was foretold of a decision until its outcome comes.
    pub(super) fn remember(&mut self, decision_id: u64, forecast: Forecast) {
        self.forecasts.insert(decision_id, forecast);
    }

    /// Takes in the next record.
    pub(super) fn apply(&mut self, record: &HistoryRecord) -> miette::Result<()> {
        match record {
            HistoryRecord::Decision(decision) if self.left_out.contains(&decision.decision_id) => return Ok(()),
            HistoryRecord::Outcome(outcome) if self.is_left_out(outcome.decision_id) => return Ok(()),
            _ => {}
        }
        let answered = self.replay.apply(record).into_diagnostic()?;
        match (record, answered) {
            (HistoryRecord::Report(report), _) => {
                let all = self.deciders.values_mut().flat_map(BTreeMap::values_mut);
                all.filter_map(Decider::policy).for_each(|policy| policy.on_report(&report.shard, &report.report));
            }
            (HistoryRecord::Outcome(outcome), Some(mut answered)) => {
                answered.ticket.forecast = self.forecasts.remove(&outcome.decision_id).unwrap_or_default();
                let observed = Observed {
                    request: &answered.request,
                    shard: &answered.shard,
                    ticket: &answered.ticket,
                    response: &answered.response,
                    known_at: outcome.known_at,
                };
                let of_router = self.deciders.get_mut(&answered.router).into_iter().flat_map(BTreeMap::values_mut);
                of_router.filter_map(Decider::policy).for_each(|policy| policy.on_response(&observed));
            }
            _ => {}
        }
        Ok(())
    }

    /// How many decisions no router was told of.
    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    fn is_left_out(&self, decision_id: u64) -> bool {
        self.left_out.contains(&decision_id) || (self.begins_late && !self.replay.is_open(decision_id))
    }
}

/// A decision that is about to be made again.
pub(super) struct Scene<'a> {
    pub(super) decision: &'a DecisionRecord,
    pub(super) context: DecisionContext<'a>,
    /// Position of the shard that was chosen.
    pub(super) chosen: usize,
    decider: &'a mut Decider,
}

/// What is decided now.
pub(super) enum Again {
    Decided(Decision),
    Refused(NoEligibleShard),
    /// The history does not hold what it was decided by.
    Unknown,
}

impl From<Option<Result<Decision, NoEligibleShard>>> for Again {
    fn from(decided: Option<Result<Decision, NoEligibleShard>>) -> Self {
        match decided {
            Some(Ok(decision)) => Self::Decided(decision),
            Some(Err(refusal)) => Self::Refused(refusal),
            None => Self::Unknown,
        }
    }
}

/// A candidate as it was weighed.
pub(super) struct Weighed {
    pub(super) position: usize,
    /// The terms of its cost, if the policy goes by such a cost.
    pub(super) terms: Option<CostTerms>,
    /// Cost without the model, warm execution that is typical by the model, and how probable a cold start is, of a placer.
    pub(super) plain_ms: Option<f64>,
    pub(super) model_ms: Option<f32>,
    pub(super) cold_probability: Option<f64>,
}

/// A decision with all that was weighed.
pub(super) struct Weighing {
    pub(super) again: Again,
    /// The whole answer, of a placer.
    pub(super) prediction: Option<ShardPrediction>,
    /// Every eligible shard, cheapest first; in the order of the fleet when the policy knows no cost.
    pub(super) candidates: Vec<Weighed>,
}

impl Scene<'_> {
    /// Whether a placer decides.
    pub(super) fn placer(&self) -> Option<&Placer> {
        match &*self.decider {
            Decider::Placer(placer) => Some(placer),
            Decider::Policy(_) | Decider::Stranger => None,
        }
    }

    /// Whether other software decided.
    pub(super) fn is_by_stranger(&self) -> bool {
        matches!(self.decider, Decider::Stranger)
    }

    /// Makes the decision again.
    pub(super) fn again(&mut self) -> Again {
        let (context, chosen) = (&self.context, self.chosen);
        self.decider.policy().and_then(|policy| policy.revisit(context, chosen)).into()
    }

    /// Makes it again and tells all that was weighed.
    pub(super) fn weigh(&mut self) -> Weighing {
        let (context, chosen) = (&self.context, self.chosen);
        match self.decider {
            Decider::Placer(placer) => match placer.revisit(context, chosen) {
                Ok(revisited) => by_placer(revisited),
                Err(refusal) => unweighed(Again::Refused(refusal), context),
            },
            Decider::Policy(policy) => {
                let again = policy.revisit(context, chosen).into();
                let mut costs = Vec::new();
                policy.costs(&mut costs);
                if costs.is_empty() { unweighed(again, context) } else { by_cost(again, &costs) }
            }
            Decider::Stranger => unweighed(Again::Unknown, context),
        }
    }
}

fn by_placer(revisited: Revisited) -> Weighing {
    let mut candidates = revisited.candidates;
    // The chosen stands first and those that the model was not asked about are in no order.
    candidates.sort_by(|a, b| a.terms.total_ms().total_cmp(&b.terms.total_ms()).then(a.position.cmp(&b.position)));
    let weighed = candidates.iter().map(|candidate| Weighed {
        position: candidate.position,
        terms: Some(candidate.terms),
        plain_ms: Some(candidate.plain_ms),
        model_ms: candidate.model_ms,
        cold_probability: Some(candidate.cold_probability),
    });
    Weighing {
        again: Again::Decided(revisited.placement.decision),
        candidates: weighed.collect(),
        prediction: Some(revisited.placement.prediction),
    }
}

fn by_cost(again: Again, costs: &[(usize, CostTerms)]) -> Weighing {
    let mut costs = costs.to_vec();
    costs.sort_by(|a, b| a.1.total_ms().total_cmp(&b.1.total_ms()).then(a.0.cmp(&b.0)));
    let weighed = |(position, terms): (usize, CostTerms)| Weighed { terms: Some(terms), ..bare(position) };
    Weighing { again, prediction: None, candidates: costs.into_iter().map(weighed).collect() }
}

fn unweighed(again: Again, context: &DecisionContext<'_>) -> Weighing {
    let mut positions = Vec::new();
    // A refusal leaves none, which is what there is to tell.
    _ = eligible(context, &Rules::default(), &mut positions);
    Weighing { again, prediction: None, candidates: positions.into_iter().map(bare).collect() }
}

fn bare(position: usize) -> Weighed {
    Weighed { position, terms: None, plain_ms: None, model_ms: None, cold_probability: None }
}
