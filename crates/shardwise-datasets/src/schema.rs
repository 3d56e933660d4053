//! The six tables of a history, each column once: what writes it, what it may hold and what it means are read off here.
//!
//! Records are read back in the order of the columns (`read_*` below); the round trip is tested.

use std::collections::BTreeSet;

use shardwise_types::{
    DecidedBy, DecisionRecord, DirectiveRecord, ErrorClass, FallbackReason, FunctionId, HardwareClass, HistoryRecord,
    MarketRecord, MarketSnapshot, OutcomeRecord, PlacementRequest, Placements, Priority, ReportRecord, Residence,
    Resized, Response, RiskLevel, RouterId, ShadowRecord, ShardId, ShardReport, ShardShape, Urgency, UsdAmount,
};

use crate::columns::{Cell, Names, RowReader};
use crate::{ColumnSpec, DatasetError, Kind, Rule};

/// A column and how a record fills it.
pub(crate) struct Source<R: 'static> {
    pub(crate) spec: ColumnSpec,
    cell: for<'a> fn(&'a R) -> Cell<'a>,
}

macro_rules! nullable {
    (needed) => {
        false
    };
    (nullable) => {
        true
    };
    (added) => {
        true
    };
}

/// Whether files of earlier versions are without the column, which is null there.
macro_rules! added {
    (added) => {
        true
    };
    ($null:ident) => {
        false
    };
}

macro_rules! table {
    ($name:ident of $record:ty; $($column:ident $kind:ident $null:ident $rule:expr, $doc:literal, $cell:expr;)*) => {
        const $name: &[Source<$record>] = &[$(Source {
            spec: ColumnSpec {
                name: stringify!($column), kind: Kind::$kind, nullable: nullable!($null), added: added!($null), rule: $rule, doc: $doc,
            },
            cell: $cell,
        }),*];
    };
}

const RISKS: Rule = Rule::OneOf(|| RiskLevel::ALL.iter().map(|level| level.as_str()).collect());
const URGENCIES: Rule = Rule::OneOf(|| Urgency::ALL.iter().map(|level| level.as_str()).collect());
const PRIORITIES: Rule = Rule::OneOf(|| Priority::ALL.iter().map(|level| level.as_str()).collect());
const DECIDERS: Rule = Rule::OneOf(|| DecidedBy::ALL.iter().map(|by| by.as_str()).collect());
const REASONS: Rule = Rule::OneOf(|| FallbackReason::ALL.iter().map(|reason| reason.as_str()).collect());
const CLASSES: Rule = Rule::OneOf(|| HardwareClass::ALL.iter().map(|class| class.as_str()).collect());
const ERRORS: Rule = Rule::OneOf(|| ErrorClass::ALL.iter().map(|class| class.as_str()).collect());

table! { DECISIONS of DecisionRecord;
    event_at Time needed Rule::Any, "When the event happened that asked for the request.", |r| Cell::I64(r.request.event_at.nanos());
    known_at Time needed Rule::Any, "When it was decided.", |r| Cell::I64(r.known_at.nanos());
    sequence I64 needed Rule::Id, "Total order among rows of all tables that are known at the same instant.", |r| Cell::id(r.sequence);
    decision_id I64 needed Rule::Id, "The decision; unique within the history.", |r| Cell::id(r.decision_id);
    router Text needed Rule::NotEmpty, "Who decided.", |r| Cell::Text(r.router.as_str());
    router_region Text needed Rule::Any, "Where that router stands.", |r| Cell::Text(r.router_region.as_str());
    function Text needed Rule::NotEmpty, "The function to run.", |r| Cell::Text(r.request.function.as_str());
    event_type Text needed Rule::Any, "The kind of event.", |r| Cell::Text(r.request.event_type.as_str());
    protocol Text needed Rule::Any, "The protocol that it concerns.", |r| Cell::Text(r.request.protocol.as_str());
    trading_pair Text needed Rule::Any, "The trading pair that it concerns.", |r| Cell::Text(r.request.trading_pair.as_str());
    exchange Text needed Rule::Any, "The exchange that the function will call.", |r| Cell::Text(r.request.exchange.as_str());
    risk_level Text needed RISKS, "How risky it is.", |r| Cell::Text(r.request.risk.as_str());
    urgency Text needed URGENCIES, "How soon the answer is needed.", |r| Cell::Text(r.request.urgency.as_str());
    priority Text needed PRIORITIES, "How much the business wants it.", |r| Cell::Text(r.request.priority.as_str());
    amount_usd F64 nullable Rule::NotNegative, "The amount at stake; null when unknown.", |r| Cell::f64_or_null(r.request.amount_usd.map(UsdAmount::usd));
    data_complexity F32 needed Rule::Positive, "Size of the input relative to the function's usual one.", |r| Cell::F32(r.request.data_complexity);
    expected_compute_ms F32 nullable Rule::Positive, "What the caller expects it to take on an ordinary shard.", |r| Cell::f32_or_null(r.request.expected_compute_ms);
    exchange_calls I64 needed Rule::Count, "Sequential calls to the exchange.", |r| Cell::I64(i64::from(r.request.exchange_calls));
    memory_mb F32 needed Rule::NotNegative, "Memory that it needs.", |r| Cell::F32(r.request.memory_mb);
    residency Text nullable Rule::NotEmpty, "The only region where it may run; null is any.", |r| Cell::text_or_null(r.request.residency.as_ref().map(shardwise_types::Region::as_str));
    event_volatility_bp F32 nullable Rule::NotNegative, "The market's volatility as the event reports it; null when it does not.", |r| Cell::f32_or_null(r.request.market.and_then(|market| market.volatility));
    event_trend_bp F32 nullable Rule::Finite, "The market's trend as the event reports it; null when it does not.", |r| Cell::f32_or_null(r.request.market.and_then(|market| market.trend));
    shard Text needed Rule::NotEmpty, "Where it went.", |r| Cell::Text(r.shard.as_str());
    propensity F64 needed Rule::Probability, "Probability with which that shard was drawn.", |r| Cell::F64(r.propensity);
    eligible I64 needed Rule::Count, "Shards that were eligible.", |r| Cell::I64(i64::from(r.eligible));
    predicted_ms F64 nullable Rule::NotNegative, "Latency that the policy expected, when it predicts one.", |r| Cell::f64_or_null(r.predicted_ms);
    policy Text needed Rule::Any, "Name of the policy.", |r| Cell::Text(&r.policy);
    decided_by Text needed DECIDERS, "Which of its deciders spoke.", |r| Cell::Text(r.decided_by.as_str());
    fallback_reason Text nullable REASONS, "Why a better decider was passed over; null when none was.", |r| Cell::text_or_null(r.fallback_reason.map(FallbackReason::as_str));
    model_version Text nullable Rule::NotEmpty, "Version of the model bundle in use; null without one.", |r| Cell::text_or_null(r.model_version.as_deref());
    logged_shards TextList nullable Rule::Any, "For a share of the decisions: the eligible shards, whose features follow.", |r| if r.logged_shards.is_empty() { Cell::Null } else { Cell::Names(Names::List(&r.logged_shards)) };
    logged_features F32List nullable Rule::Any, "Their feature vectors, row by row, in the order of the feature table.", |r| if r.logged_shards.is_empty() { Cell::Null } else { Cell::Floats(&r.logged_features) };
}

table! { SHADOW of ShadowRecord;
    event_at Time needed Rule::Any, "When the event happened that asked for the request, as in the decision.", |r| Cell::I64(r.event_at.nanos());
    known_at Time needed Rule::Any, "When it was decided: what the challenger says follows from what was known then.", |r| Cell::I64(r.known_at.nanos());
    sequence I64 needed Rule::Id, "The decision's: its row in `decisions` has the same, and comes right before.", |r| Cell::id(r.sequence);
    decision_id I64 needed Rule::Id, "The decision; at most one row for each challenger.", |r| Cell::id(r.decision_id);
    model_version Text needed Rule::NotEmpty, "Version of the challenger.", |r| Cell::Text(&r.model_version);
    shard Text needed Rule::NotEmpty, "The shard that the challenger finds cheapest.", |r| Cell::Text(r.shard.as_str());
    agrees Bool needed Rule::Any, "Whether that is the shard where the request went.", |r| Cell::Bool(r.agrees);
    expected_ms F64 needed Rule::NotNegative, "Latency that it expects on the shard that it finds cheapest.", |r| Cell::F64(r.expected_ms);
    chosen_expected_ms F64 nullable Rule::NotNegative, "Latency that it expects on the shard where the request went; null when that was not among the candidates.", |r| Cell::f64_or_null(r.chosen_expected_ms);
    chosen_exec_ms F32 nullable Rule::Positive, "Warm execution that it finds typical where the request went, to be held against the outcome's; null when its heads could not be asked.", |r| Cell::f32_or_null(r.chosen_exec_ms);
    fallback_reason Text nullable REASONS, "Why its heads could not be asked, so that its service table speaks alone; null when they were.", |r| Cell::text_or_null(r.fallback_reason.map(FallbackReason::as_str));
}

table! { OUTCOMES of OutcomeRecord;
    event_at Time needed Rule::Any, "When the shard finished.", |r| Cell::I64(r.event_at.nanos());
    known_at Time needed Rule::Any, "When the response, or the timeout, reached the router.", |r| Cell::I64(r.known_at.nanos());
    sequence I64 needed Rule::Id, "Total order among rows of all tables that are known at the same instant.", |r| Cell::id(r.sequence);
    decision_id I64 needed Rule::Id, "The decision that it answers; at most one outcome each.", |r| Cell::id(r.decision_id);
    router Text needed Rule::NotEmpty, "The router.", |r| Cell::Text(r.router.as_str());
    error_class Text nullable ERRORS, "Why it failed; null when it succeeded.", |r| Cell::text_or_null(r.response.error.map(ErrorClass::as_str));
    total_ms F32 needed Rule::NotNegative, "From dispatch to response at the router.", |r| Cell::F32(r.response.total_ms);
    exec_ms F32 needed Rule::NotNegative, "On a core, loading included; 0 when it never ran.", |r| Cell::F32(r.response.exec_ms);
    queue_ms F32 needed Rule::NotNegative, "In the shard's queue.", |r| Cell::F32(r.response.queue_ms);
    queue_len I64 needed Rule::Count, "Requests queued and running on the shard when it answered.", |r| Cell::I64(i64::from(r.response.queue_len));
    cold Bool needed Rule::Any, "Whether the function had to be loaded first.", |r| Cell::Bool(r.response.cold);
}

table! { SHARD_REPORTS of ReportRecord;
    event_at Time needed Rule::Any, "When it was measured, by the shard's clock.", |r| Cell::I64(r.report.event_at.nanos());
    known_at Time needed Rule::Any, "When it was learned.", |r| Cell::I64(r.report.known_at.nanos());
    sequence I64 needed Rule::Id, "Total order among rows of all tables that are known at the same instant.", |r| Cell::id(r.sequence);
    router Text added Rule::NotEmpty, "The router that heard it at that time; null is all of them. Without this column all heard all.", |r| Cell::text_or_null(r.router.as_ref().map(RouterId::as_str));
    shard Text needed Rule::NotEmpty, "The shard.", |r| Cell::Text(r.shard.as_str());
    region Text needed Rule::NotEmpty, "Where it stands.", |r| Cell::Text(r.shape.region.as_str());
    cores F32 needed Rule::Positive, "Cores that run requests.", |r| Cell::F32(r.shape.cores);
    clock_ghz F32 needed Rule::Positive, "Clock of its cores.", |r| Cell::F32(r.shape.clock_ghz);
    shard_memory_mb F32 needed Rule::Positive, "Its memory.", |r| Cell::F32(r.shape.memory_mb);
    hardware Text needed CLASSES, "What the machine is good at.", |r| Cell::Text(r.shape.hardware.as_str());
    max_amount_usd F64 nullable Rule::NotNegative, "The largest amount that may run there; null is no limit.", |r| Cell::f64_or_null(r.shape.max_amount_usd);
    healthy Bool needed Rule::Any, "Whether it calls itself healthy.", |r| Cell::Bool(r.report.healthy);
    cpu F32 needed Rule::Share, "Share of its cores in use.", |r| Cell::F32(r.report.cpu);
    memory F32 needed Rule::Share, "Share of its memory in use.", |r| Cell::F32(r.report.memory);
    queue_len I64 needed Rule::Count, "Requests that wait.", |r| Cell::I64(i64::from(r.report.queue_len));
    running I64 needed Rule::Count, "Requests that run.", |r| Cell::I64(i64::from(r.report.running));
    error_rate F32 needed Rule::Share, "Share of requests that failed since the report before.", |r| Cell::F32(r.report.error_rate);
    mean_latency_ms F32 needed Rule::NotNegative, "Mean time of a request there since the report before.", |r| Cell::F32(r.report.mean_latency_ms);
}

table! { MARKET of MarketRecord;
    event_at Time needed Rule::Any, "The end of the minute.", |r| Cell::I64(r.event_at.nanos());
    known_at Time needed Rule::Any, "When it was learned.", |r| Cell::I64(r.known_at.nanos());
    sequence I64 needed Rule::Id, "Total order among rows of all tables that are known at the same instant.", |r| Cell::id(r.sequence);
    router Text added Rule::NotEmpty, "The router that heard it at that time; null is all of them. Without this column all heard all.", |r| Cell::text_or_null(r.router.as_ref().map(RouterId::as_str));
    instrument Text needed Rule::NotEmpty, "What is traded.", |r| Cell::Text(&r.instrument);
    price_usd F64 needed Rule::Positive, "Closing price.", |r| Cell::F64(r.price_usd);
    volume F64 needed Rule::NotNegative, "Volume in the minute, in units of the instrument.", |r| Cell::F64(r.volume);
    volatility_bp F32 nullable Rule::NotNegative, "Standard deviation of one-minute log returns over the last hour.", |r| Cell::f32_or_null(r.volatility_bp);
    trend_bp F32 nullable Rule::Finite, "Log return over the last hour.", |r| Cell::f32_or_null(r.trend_bp);
}

table! { DIRECTIVES of DirectiveRecord;
    event_at Time needed Rule::Any, "From when on it was to hold.", |r| Cell::I64(r.event_at.nanos());
    known_at Time needed Rule::Any, "When the router began to follow it.", |r| Cell::I64(r.known_at.nanos());
    sequence I64 needed Rule::Id, "Total order among rows of all tables that are known at the same instant.", |r| Cell::id(r.sequence);
    router Text needed Rule::NotEmpty, "The router.", |r| Cell::Text(r.router.as_str());
    avoided_functions TextList needed Rule::Any, "Functions that go elsewhere while they can, one for each of the shards that follow.", |r| Cell::Names(Names::Functions(r.placements.avoided()));
    avoided_shards TextList needed Rule::Any, "The shards that they avoid.", |r| Cell::Names(Names::Shards(r.placements.avoided()));
    warm_functions TextList needed Rule::Any, "Functions that are kept loaded, one for each of the shards that follow.", |r| Cell::Names(Names::Functions(r.placements.warm()));
    warm_shards TextList needed Rule::Any, "The shards that keep them.", |r| Cell::Names(Names::Shards(r.placements.warm()));
    drained_shards TextList needed Rule::Any, "Shards that get nothing while others can take it.", |r| Cell::Names(Names::Set(r.placements.drained()));
    gone_shards TextList added Rule::Any, "Shards that the router gave up at that time, because nobody had heard of them for long.", |r| Cell::Names(Names::List(&r.gone));
    resized_shards TextList added Rule::Any, "Shards that are taken to have another size from that time on, until they report again: limits that came to hold, or do no longer.", |r| Cell::Names(Names::List(&r.resized.shards));
    resized_cores F32List added Rule::Any, "Cores that run requests, of each of them.", |r| Cell::Floats(&r.resized.cores);
    resized_memory_mb F32List added Rule::Any, "Memory of each of them.", |r| Cell::Floats(&r.resized.memory_mb);
}

/// A table of the history, in the order in which rows of equal (`known_at`, `sequence`) are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    Decisions,
    /// Right behind the decisions, whose places in the order its rows share.
    Shadow,
    Outcomes,
    ShardReports,
    Market,
    Directives,
}

impl Table {
    pub(crate) const ALL: [Self; 6] =
        [Self::Decisions, Self::Shadow, Self::Outcomes, Self::ShardReports, Self::Market, Self::Directives];

    /// Whether a history may be without its folder: most routers have no challenger and nobody who directs them, and older
    /// ones could not log either.
    pub(crate) fn may_be_missing(self) -> bool {
        matches!(self, Self::Shadow | Self::Directives)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decisions => "decisions",
            Self::Shadow => "shadow",
            Self::Outcomes => "outcomes",
            Self::ShardReports => "shard_reports",
            Self::Market => "market",
            Self::Directives => "directives",
        }
    }

    pub(crate) fn specs(self) -> Vec<ColumnSpec> {
        match self {
            Self::Decisions => specs(DECISIONS),
            Self::Shadow => specs(SHADOW),
            Self::Outcomes => specs(OUTCOMES),
            Self::ShardReports => specs(SHARD_REPORTS),
            Self::Market => specs(MARKET),
            Self::Directives => specs(DIRECTIVES),
        }
    }

    /// Where a column stands.
    pub(crate) fn column(self, name: &str) -> Option<usize> {
        match self {
            Self::Decisions => DECISIONS.iter().position(|source| source.spec.name == name),
            Self::Shadow => SHADOW.iter().position(|source| source.spec.name == name),
            Self::Outcomes => OUTCOMES.iter().position(|source| source.spec.name == name),
            Self::ShardReports => SHARD_REPORTS.iter().position(|source| source.spec.name == name),
            Self::Market => MARKET.iter().position(|source| source.spec.name == name),
            Self::Directives => DIRECTIVES.iter().position(|source| source.spec.name == name),
        }
    }

    /// The columns by which its rows are ordered: the total order, then what tells rows of one instant apart.
    pub(crate) fn order(self) -> [&'static str; 4] {
        match self {
            Self::Decisions | Self::Outcomes => ["known_at", "sequence", "decision_id", "event_at"],
            Self::Shadow => ["known_at", "sequence", "decision_id", "model_version"],
            Self::ShardReports => ["known_at", "sequence", "shard", "event_at"],
            Self::Market => ["known_at", "sequence", "instrument", "event_at"],
            Self::Directives => ["known_at", "sequence", "router", "event_at"],
        }
    }

    pub(crate) fn of(record: &HistoryRecord) -> Self {
        match record {
            HistoryRecord::Decision(_) => Self::Decisions,
            HistoryRecord::Shadow(_) => Self::Shadow,
            HistoryRecord::Outcome(_) => Self::Outcomes,
            HistoryRecord::Report(_) => Self::ShardReports,
            HistoryRecord::Market(_) => Self::Market,
            HistoryRecord::Directive(_) => Self::Directives,
        }
    }

    pub(crate) fn read(self, row: &mut RowReader<'_>) -> Result<HistoryRecord, DatasetError> {
        match self {
            Self::Decisions => read_decision(row).map(|record| HistoryRecord::Decision(Box::new(record))),
            Self::Shadow => read_shadow(row).map(|record| HistoryRecord::Shadow(Box::new(record))),
            Self::Outcomes => read_outcome(row).map(HistoryRecord::Outcome),
            Self::ShardReports => read_report(row).map(|record| HistoryRecord::Report(Box::new(record))),
            Self::Market => read_market(row).map(HistoryRecord::Market),
            Self::Directives => read_directive(row).map(|record| HistoryRecord::Directive(Box::new(record))),
        }
    }
}

fn specs<R>(sources: &[Source<R>]) -> Vec<ColumnSpec> {
    sources.iter().map(|source| source.spec).collect()
}

/// The values of a record, in the order of its table's columns.
pub(crate) fn cells(record: &HistoryRecord) -> Vec<Cell<'_>> {
    match record {
        HistoryRecord::Decision(record) => DECISIONS.iter().map(|source| (source.cell)(record)).collect(),
        HistoryRecord::Shadow(record) => SHADOW.iter().map(|source| (source.cell)(record)).collect(),
        HistoryRecord::Outcome(record) => OUTCOMES.iter().map(|source| (source.cell)(record)).collect(),
        HistoryRecord::Report(record) => SHARD_REPORTS.iter().map(|source| (source.cell)(record)).collect(),
        HistoryRecord::Market(record) => MARKET.iter().map(|source| (source.cell)(record)).collect(),
        HistoryRecord::Directive(record) => DIRECTIVES.iter().map(|source| (source.cell)(record)).collect(),
    }
}

fn read_decision(row: &mut RowReader<'_>) -> Result<DecisionRecord, DatasetError> {
    let event_at = row.time()?;
    let (known_at, sequence, decision_id) = (row.time()?, row.id()?, row.id()?);
    let (router, router_region) = (row.text()?.into(), row.text()?.into());
    let request = PlacementRequest {
        function: row.text()?.into(),
        event_type: row.text()?.into(),
        protocol: row.text()?.into(),
        trading_pair: row.text()?.into(),
        exchange: row.text()?.into(),
        risk: row.word(|word| RiskLevel::parse(word).ok())?,
        urgency: row.word(|word| Urgency::parse(word).ok())?,
        priority: row.word(|word| Priority::parse(word).ok())?,
        amount_usd: row.opt_f64()?.map(|usd| UsdAmount::new(usd).expect("the column's rule is the amount's own")),
        data_complexity: row.f32()?,
        expected_compute_ms: row.opt_f32()?,
        exchange_calls: row.count()?,
        memory_mb: row.f32()?,
        residency: row.opt_text()?.map(Into::into),
        event_at,
        market: market_of(row.opt_f32()?, row.opt_f32()?),
    };
    Ok(DecisionRecord {
        decision_id,
        sequence,
        known_at,
        router,
        router_region,
        request,
        shard: row.text()?.into(),
        propensity: row.f64()?,
        eligible: row.count()?,
        predicted_ms: row.opt_f64()?,
        policy: row.text()?.to_owned(),
        decided_by: row.word(|word| DecidedBy::ALL.into_iter().find(|by| by.as_str() == word))?,
        fallback_reason: read_reason(row)?,
        model_version: row.opt_text()?.map(str::to_owned),
        logged_shards: row.names()?,
        logged_features: row.floats()?,
    })
}

fn read_reason(row: &mut RowReader<'_>) -> Result<Option<FallbackReason>, DatasetError> {
    row.opt_word(|word| FallbackReason::ALL.into_iter().find(|reason| reason.as_str() == word))
}

fn read_shadow(row: &mut RowReader<'_>) -> Result<ShadowRecord, DatasetError> {
    Ok(ShadowRecord {
        event_at: row.time()?,
        known_at: row.time()?,
        sequence: row.id()?,
        decision_id: row.id()?,
        model_version: row.text()?.to_owned(),
        shard: row.text()?.into(),
        agrees: row.flag()?,
        expected_ms: row.f64()?,
        chosen_expected_ms: row.opt_f64()?,
        chosen_exec_ms: row.opt_f32()?,
        fallback_reason: read_reason(row)?,
    })
}

/// An event that reports neither number reports no market.
fn market_of(volatility: Option<f32>, trend: Option<f32>) -> Option<MarketSnapshot> {
    (volatility.is_some() || trend.is_some()).then_some(MarketSnapshot { volatility, trend })
}

fn read_outcome(row: &mut RowReader<'_>) -> Result<OutcomeRecord, DatasetError> {
    let (event_at, known_at, sequence, decision_id) = (row.time()?, row.time()?, row.id()?, row.id()?);
    let router = row.text()?.into();
    let response = Response {
        error: row.opt_word(|word| ErrorClass::parse(word).ok())?,
        total_ms: row.f32()?,
        exec_ms: row.f32()?,
        queue_ms: row.f32()?,
        queue_len: row.count()?,
        cold: row.flag()?,
    };
    Ok(OutcomeRecord { decision_id, sequence, event_at, known_at, router, response })
}

fn read_report(row: &mut RowReader<'_>) -> Result<ReportRecord, DatasetError> {
    let (event_at, known_at, sequence) = (row.time()?, row.time()?, row.id()?);
    let router = row.opt_text()?.map(RouterId::new);
    let shard = row.text()?.into();
    let shape = ShardShape {
        region: row.text()?.into(),
        cores: row.f32()?,
        clock_ghz: row.f32()?,
        memory_mb: row.f32()?,
        hardware: row.word(|word| HardwareClass::parse(word).ok())?,
        max_amount_usd: row.opt_f64()?,
    };
    let report = ShardReport {
        event_at,
        known_at,
        healthy: row.flag()?,
        cpu: row.f32()?,
        memory: row.f32()?,
        queue_len: row.count()?,
        running: row.count()?,
        error_rate: row.f32()?,
        mean_latency_ms: row.f32()?,
    };
    Ok(ReportRecord { sequence, router, shard, shape, report })
}

fn read_market(row: &mut RowReader<'_>) -> Result<MarketRecord, DatasetError> {
    Ok(MarketRecord {
        event_at: row.time()?,
        known_at: row.time()?,
        sequence: row.id()?,
        router: row.opt_text()?.map(RouterId::new),
        instrument: row.text()?.to_owned(),
        price_usd: row.f64()?,
        volume: row.f64()?,
        volatility_bp: row.opt_f32()?,
        trend_bp: row.opt_f32()?,
    })
}

fn read_directive(row: &mut RowReader<'_>) -> Result<DirectiveRecord, DatasetError> {
    let (event_at, known_at, sequence, router) = (row.time()?, row.time()?, row.id()?, row.text()?.into());
    let avoided = read_pairs(row)?;
    let warm = read_pairs(row)?;
    let drained = row.names()?.into_iter().collect();
    let (gone, shards) = (row.names()?, row.names()?);
    let (cores, memory_mb) = (row.floats()?, row.floats()?);
    if [cores.len(), memory_mb.len()] != [shards.len(); 2] {
        let rule = format!("one for each of the {} resized_shards, in resized_cores and here", shards.len());
        return Err(row.bad_last(format!("{} and {} numbers", cores.len(), memory_mb.len()), rule));
    }
    let (placements, resized) = (Placements::new(avoided, warm, drained), Resized { shards, cores, memory_mb });
    Ok(DirectiveRecord { sequence, event_at, known_at, router, placements, gone, resized })
}

/// Pairs of functions and shards, of two lists of one length.
fn read_pairs(row: &mut RowReader<'_>) -> Result<BTreeSet<Residence>, DatasetError> {
    let (functions, shards): (Vec<FunctionId>, Vec<ShardId>) = (row.names()?, row.names()?);
    if functions.len() != shards.len() {
        let rule = format!("one for each of the {} functions of the column before", functions.len());
        return Err(row.bad_last(format!("{} names", shards.len()), rule));
    }
    Ok(functions.into_iter().zip(shards).map(|(function, shard)| Residence { function, shard }).collect())
}

/// A table of the history, for documentation.
pub struct TableDoc {
    /// Its name, which is its folder.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// Its columns, in order.
    pub columns: fn() -> Vec<ColumnSpec>,
}

/// The tables of a history.
pub const TABLES: [TableDoc; 6] = [
    TableDoc { name: "decisions", doc: "One decision of a router.", columns: || specs(DECISIONS) },
    TableDoc {
        name: "shadow",
        doc: "What a challenger, which decides nothing, says of a decision. Histories without challengers have no such table.",
        columns: || specs(SHADOW),
    },
    TableDoc { name: "outcomes", doc: "What became of a decision.", columns: || specs(OUTCOMES) },
    TableDoc { name: "shard_reports", doc: "A shard's report to the routers.", columns: || specs(SHARD_REPORTS) },
    TableDoc { name: "market", doc: "One minute of the market.", columns: || specs(MARKET) },
    TableDoc {
        name: "directives",
        doc: "What a planner or an operator directs, as it reaches a router: all that holds from then on. Histories of fleets that nobody directs have no such table.",
        columns: || specs(DIRECTIVES),
    },
];

/// The reference page of the history's tables, in Markdown.
pub fn history_page() -> String {
    let mut page = "# The history\n\nGenerated from the tables in `shardwise-datasets`; do not edit.\n\n\
        `<history>/<table>/date=YYYY-MM-DD/*.parquet`, where the date is the day of `known_at` in UTC, and \
        `<history>/topology.json` (regions, distances, exchanges). Every row says when it happened (`event_at`) and \
        when the router learned it (`known_at`); rows are taken in the order of (`known_at`, `sequence`).\n"
        .to_owned();
    for table in TABLES {
        page += &format!(
            "\n## {}\n\n{}\n\n| column | type | null | what it is | range |\n|---|---|---|---|---|\n",
            table.name, table.doc
        );
        for column in (table.columns)() {
            let null = if column.nullable { "yes" } else { "no" };
            let (name, kind, doc) = (column.name, column.kind.name(), column.doc);
            page += &format!("| `{name}` | {kind} | {null} | {doc} | {} |\n", column.rule.words());
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_carries_both_clocks_and_a_sequence() {
        for table in Table::ALL {
            let names: Vec<&str> = table.specs().iter().map(|spec| spec.name).collect();
            assert_eq!(names[..3], ["event_at", "known_at", "sequence"], "{}", table.name());
            assert!(table.order().iter().all(|column| names.contains(column)));
        }
    }

    #[test]
    fn the_committed_page_is_the_tables() {
        let (path, page) = (concat!(env!("CARGO_MANIFEST_DIR"), "/HISTORY.md"), history_page());
        if std::env::var_os("SHARDWISE_WRITE_PAGES").is_some() {
            std::fs::write(path, &page).expect("the page can be written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(committed, page, "run this test with SHARDWISE_WRITE_PAGES=1 and commit HISTORY.md");
        let columns = TABLES.iter().flat_map(|table| (table.columns)());
        columns.for_each(|column| assert!(page.contains(&format!("| `{}` |", column.name)), "{}", column.name));
    }
}
