//! `shardwise explain`: logged decisions again, computed by the very code that made them, in the state in which it made them.

mod account;
mod compare;
mod page;
mod travel;
mod what_if;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use shardwise_datasets::History;
use shardwise_policies::Runtime;
use shardwise_simulator::WorldSpec;
use shardwise_types::{DecisionRecord, HistoryRecord};

use self::account::{Account, Outcome, account};
use self::compare::{Compared, Difference, compare};
use self::travel::{Again, Models, Travel};
use self::what_if::what_if;
use crate::arguments::ExplainArguments;
use crate::output::{self, Stage};

/// Decisions that differ and are kept as examples.
const MOST_EXAMPLES: usize = 10;
/// Progress is told after so many decisions.
const TELL_EVERY: u64 = 10_000;

pub(crate) fn run(options: &ExplainArguments, json: bool) -> miette::Result<()> {
    let history = History::open(&options.history).into_diagnostic()?;
    let journey = Journey::plan(options, &history)?;
    match (options.decision, options.sample) {
        (Some(id), _) => {
            let account = journey.explain(id)?;
            if let Some(path) = &options.html {
                page::write(path, &account)?;
            }
            if json { output::print_json(&account) } else { words::print(&account, options.html.as_deref()) }
        }
        (None, sample) => {
            let found = journey.check(sample.unwrap_or(1))?;
            if json { output::print_json(&found) } else { words::print_check(&found) }
        }
    }
}

/// A replay that is about to begin.
struct Journey<'a> {
    options: &'a ExplainArguments,
    history: &'a History,
    travel: Travel,
    decisions: u64,
    /// What must be taken on trust.
    notes: Vec<String>,
}

/// How many of the decisions of a sample come out as they were logged.
#[derive(Default, Serialize)]
struct Checked {
    decisions: u64,
    /// Those of which every field, and every logged feature, is the same bit for bit.
    identical: u64,
    /// The first of the others.
    different: Vec<Differing>,
    /// Those that cannot be made again from what the history holds.
    not_reproducible: u64,
    /// Whether some of these went by what no history holds.
    #[serde(skip)]
    by_chance: bool,
    /// Logged feature vectors among what was compared.
    feature_rows: u64,
    /// Who decided how often, by the log.
    decided_by: BTreeMap<&'static str, u64>,
    /// Policies that decided.
    policies: BTreeSet<String>,
    /// Versions of the model that decided.
    model_versions: BTreeSet<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Differing {
    decision_id: u64,
    policy: String,
    differences: Vec<Difference>,
}

impl<'a> Journey<'a> {
    fn plan(options: &'a ExplainArguments, history: &'a History) -> miette::Result<Self> {
        let by_router = history.decisions_by_router(options.from, options.to).into_diagnostic()?;
        let decisions = by_router.values().sum();
        if decisions == 0 {
            let help = "give an earlier --from or a later --to, or leave them out";
            return Err(miette!(help = help, "{} holds no decision of that time", options.history.display()));
        }
        let mut notes = Vec::new();
        let runtime = match history.world_json() {
            Some(world) => {
                let world: WorldSpec = serde_json::from_str(world).into_diagnostic()?;
                world.timing.runtime()
            }
            None => {
                notes.push(
                    "the history has no world.json: its routers are taken to be shardwise's, with the default configuration, \
                     started when it begins"
                        .to_owned(),
                );
                Runtime::default()
            }
        };
        let models = Models::open(options)?;
        let travel = Travel::begin(history, by_router.into_keys(), models, runtime, options.from);
        Ok(Self { options, history, travel, decisions, notes })
    }

    /// Goes to one decision and tells of it.
    fn explain(mut self, id: u64) -> miette::Result<Account> {
        let mut stage = Stage::start("going back");
        let mut records = self.history.records(self.options.from, self.options.to).into_diagnostic()?;
        let mut done = 0;
        let (mut first, mut last) = (None, None);
        while let Some(record) = records.next() {
            let record = record.into_diagnostic()?;
            if let HistoryRecord::Decision(decision) = &record {
                if decision.decision_id == id {
                    let mut account = self.tell(decision)?;
                    stage.done(format!("{done} decisions made again on the way"));
                    account.outcome = outcome_of(id, &mut records)?;
                    return Ok(account);
                }
                first = first.or(Some(decision.decision_id));
                last = Some(decision.decision_id);
                self.pass(decision)?;
                done += 1;
                self.tell_progress(&mut stage, done)?;
            }
            self.travel.apply(&record)?;
        }
        let (history, first, last) = (self.options.history.display(), first.unwrap_or(0), last.unwrap_or(0));
        let help = format!("ids are in the column decision_id of its decisions; the first is {first}, the last {last}");
        Err(miette!(help = help, "there is no decision {id} in {history}"))
    }

    fn tell(&mut self, decision: &DecisionRecord) -> miette::Result<Account> {
        let (runtime, left_out) = (self.travel.runtime(), self.travel.left_out());
        let Some(mut scene) = self.travel.arrive(decision)? else {
            let (id, shard) = (decision.decision_id, &decision.shard);
            let help =
                "choose a later decision, or an earlier --from: nothing is known of a shard before its first report";
            return Err(miette!(help = help, "decision {id} went to {shard}, which had not reported before"));
        };
        let mut account = account(&mut scene, runtime, None);
        account.command = self.options.command(account.decision_id);
        account.what_if = what_if(&scene, &self.options.what_if)?;
        account.notes = std::mem::take(&mut self.notes);
        if scene.is_by_stranger() {
            account.notes.push(format!(
                "'{}' is no policy of shardwise: what it computed is not in the history, and its choice is shown as it was logged",
                decision.policy
            ));
        } else if account.identical.is_none() {
            account.notes.push(by_chance(&decision.policy));
        } else if account.identical == Some(false) {
            account.notes.push(WHY_DIFFERENT.to_owned());
        }
        account.notes.extend(missing(left_out));
        Ok(account)
    }

    /// Makes a decision again on the way to another.
    fn pass(&mut self, decision: &DecisionRecord) -> miette::Result<()> {
        if let Some(mut scene) = self.travel.arrive(decision)?
            && let Again::Decided(again) = scene.again()
        {
            self.travel.remember(decision.decision_id, again.forecast);
        }
        Ok(())
    }

    /// Goes through all decisions, and compares some.
    fn check(mut self, wanted: u64) -> miette::Result<Checked> {
        let wanted = wanted.min(self.decisions);
        let mut stage = Stage::start("making decisions again");
        let mut checked = Checked::default();
        let mut done = 0;
        for record in self.history.records(self.options.from, self.options.to).into_diagnostic()? {
            let record = record.into_diagnostic()?;
            if let HistoryRecord::Decision(decision) = &record {
                // In the middle of each of so many equal parts.
                let next = (2 * checked.decisions + 1) * self.decisions / (2 * wanted);
                if done == next && checked.decisions < wanted {
                    self.compare(decision, &mut checked)?;
                } else {
                    self.pass(decision)?;
                }
                done += 1;
                self.tell_progress(&mut stage, done)?;
            }
            self.travel.apply(&record)?;
        }
        stage.done(format!("{done} decisions, {} of which were compared", checked.decisions));
        self.judge(checked)
    }

    fn compare(&mut self, decision: &DecisionRecord, checked: &mut Checked) -> miette::Result<()> {
        checked.decisions += 1;
        checked.policies.insert(decision.policy.clone());
        *checked.decided_by.entry(decision.decided_by.as_str()).or_default() += 1;
        checked.model_versions.extend(decision.model_version.clone());
        let Some(mut scene) = self.travel.arrive(decision)? else {
            checked.not_reproducible += 1;
            return Ok(());
        };
        let again = scene.again();
        let Compared { differences, feature_rows, .. } = compare(&scene, &again);
        checked.feature_rows += feature_rows;
        if let Again::Decided(again) = again {
            self.travel.remember(decision.decision_id, again.forecast);
            checked.identical += u64::from(differences.is_empty());
        } else if differences.is_empty() {
            checked.not_reproducible += 1;
            checked.by_chance = true;
        }
        if !differences.is_empty() && checked.different.len() < MOST_EXAMPLES {
            let (decision_id, policy) = (decision.decision_id, decision.policy.clone());
            checked.different.push(Differing { decision_id, policy, differences });
        }
        Ok(())
    }

    /// Says what the figures rest on, and refuses to say anything of a history that shardwise did not decide.
    fn judge(self, mut checked: Checked) -> miette::Result<Checked> {
        let policies: Vec<&str> = checked.policies.iter().map(String::as_str).collect();
        let policies = policies.join(", ");
        if checked.not_reproducible == checked.decisions {
            let help = "--decision ID shows what was known, and what others would have chosen";
            return Err(miette!(
                help = help,
                "nothing of what {policies} decided can be computed again from a history"
            ));
        }
        checked.notes = self.notes;
        if checked.by_chance {
            checked.notes.push(by_chance(&policies));
        }
        if !checked.different.is_empty() {
            checked.notes.push(WHY_DIFFERENT.to_owned());
        }
        checked.notes.extend(missing(self.travel.left_out()));
        Ok(checked)
    }

    fn tell_progress(&self, stage: &mut Stage, done: u64) -> miette::Result<()> {
        if done.is_multiple_of(TELL_EVERY) {
            stage.count(done, self.decisions, format!("{done} of {} decisions", self.decisions));
            output::stop_if_interrupted()?;
        }
        Ok(())
    }
}

/// What may be the matter when bits differ.
const WHY_DIFFERENT: &str = "what differs was decided in another state or by other code: routers may have been started anew since \
                             the history begins (give --from), been configured otherwise, or run another version of shardwise";

fn by_chance(policies: &str) -> String {
    format!("what {policies} decided hangs on draws or answers that the history does not hold, or on other software")
}

fn missing(left_out: usize) -> Option<String> {
    let what =
        "went to shards that had not reported; the routers are not told of them, so that later decisions may differ";
    (left_out > 0).then(|| format!("{left_out} decisions {what}"))
}

fn outcome_of(
    id: u64,
    records: &mut impl Iterator<Item = Result<HistoryRecord, shardwise_datasets::DatasetError>>,
) -> miette::Result<Option<Outcome>> {
    for record in records {
        if let HistoryRecord::Outcome(outcome) = record.into_diagnostic()?
            && outcome.decision_id == id
        {
            return Ok(Some(Outcome::from(&outcome)));
        }
    }
    Ok(None)
}
