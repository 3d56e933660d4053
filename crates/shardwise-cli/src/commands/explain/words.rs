//! A decision for people, on a terminal of eighty columns.

use std::path::Path;

use shardwise_evaluation::visible;
use shardwise_features::{FEATURES, FeatureGroup};
use shardwise_types::{ErrorClass, PlacementRequest};

use super::Checked;
use super::account::{Account, Answer, Candidate, Knew, Outcome, Rival, Terms};
use super::compare::Difference;
use super::what_if::{Said, WhatIf};

/// Candidates that are shown, the chosen beside.
const MOST_ROWS: usize = 12;
/// Features that are shown of the chosen and its rival.
const MOST_FEATURES: usize = 12;
/// Width of the terminal, and of the labels in front of what is said.
const LINE_WIDTH: usize = 80;
const LABEL_WIDTH: usize = 9;
/// Widths of the names of shards and of features.
const SHARD_WIDTH: usize = 24;
const FEATURE_WIDTH: usize = 34;

pub(super) fn print_check(checked: &Checked) -> miette::Result<()> {
    let Checked { decisions, identical, not_reproducible, feature_rows, .. } = checked;
    println!(
        "{decisions} decisions made again: {identical} identical bit for bit, {} different, {not_reproducible} that cannot be made again",
        decisions - identical - not_reproducible
    );
    println!("{feature_rows} logged feature vectors compared with them");
    for differing in &checked.different {
        println!("decision {} by {}:", differing.decision_id, visible(&differing.policy));
        for difference in differing.differences.iter().take(MOST_FEATURES) {
            let Difference { field, logged, again } = difference;
            println!("{}", visible(&format!("  {field}: {logged} was logged, {again} is computed")));
        }
    }
    checked.notes.iter().for_each(|note| say("note", note));
    Ok(())
}

pub(super) fn print(account: &Account, page: Option<&Path>) -> miette::Result<()> {
    let model = account.model_version.as_deref().map_or(String::new(), |version| format!(", model {version}"));
    println!("decision {} at {}", account.decision_id, account.decided_at);
    let by = format!("by {} in {}, policy {}{model}", account.router, account.router_region, account.policy);
    println!("{}\n", visible(&by));
    say_request(&account.request);
    say_knew(&account.knew);
    say_logged(account);
    account.answer.iter().for_each(say_answer);
    account.reasons.iter().for_each(|reason| say("      ·", reason));
    print_candidates(&account.candidates);
    print_features(&account.candidates);
    print_rivals(&account.rivals);
    say_outcome(account.outcome.as_ref());
    account.what_if.iter().for_each(print_what_if);
    account.notes.iter().for_each(|note| say("note", note));
    page.iter().for_each(|page| println!("page     {}", page.display()));
    Ok(())
}

/// Prints a text beside its label, on as many lines as it takes.
fn say(label: &str, text: &str) {
    let mut line = format!("{label:<LABEL_WIDTH$}");
    let mut is_empty = true;
    let text = visible(text);
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > LINE_WIDTH {
            println!("{line}");
            line = " ".repeat(LABEL_WIDTH);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    println!("{line}");
}

fn say_request(request: &PlacementRequest) {
    let amount = request.amount_usd.map_or("unknown".to_owned(), |amount| format!("${:.0}", amount.usd()));
    let residency = request.residency.as_ref().map_or(String::new(), |region| format!(", only in {region}"));
    let PlacementRequest { function, event_type, protocol, trading_pair, exchange, .. } = request;
    let (calls, memory_mb, complexity) = (request.exchange_calls, request.memory_mb, request.data_complexity);
    say("request", &format!("{function} for {event_type} of {protocol}, {trading_pair} on {exchange}"));
    say("", &format!("{calls} calls, amount {amount}, {memory_mb:.0} MB, complexity {complexity:.2}{residency}"));
    let [risk, urgency, priority] = [request.risk.as_str(), request.urgency.as_str(), request.priority.as_str()];
    say("", &format!("risk {risk}, urgency {urgency}, priority {priority}"));
}

fn say_knew(knew: &Knew) {
    let ages = knew.newest_report_ms.zip(knew.oldest_report_ms);
    let ages = ages.map_or(String::new(), |(newest, oldest)| format!(", reports {newest:.0} to {oldest:.0} ms old"));
    say("knew", &format!("{} shards, {} healthy, {} eligible{ages}", knew.shards, knew.healthy, knew.eligible));
    let answers = knew.response_ms.map_or("no time yet".to_owned(), |ms| format!("{ms:.1} ms"));
    let failures = knew.error_rate.map_or("unknown".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let (out, rate) = (knew.in_flight, knew.arrivals_per_s);
    say("", &format!("{out:.0} own requests out, {rate:.0} arrivals/s, answers in {answers}, failures {failures}"));
}

fn say_logged(account: &Account) {
    let logged = &account.logged;
    let expected = logged.predicted_ms.map_or(String::new(), |ms| format!(", {ms:.1} ms expected"));
    let fallback = logged.fallback_reason.map_or(String::new(), |reason| format!(" ({})", reason.as_str()));
    let (shard, propensity, who) = (&logged.shard, logged.propensity, logged.decided_by.as_str());
    say("logged", &format!("{shard}{expected}, propensity {propensity:.4}, by {who}{fallback}"));
    let again = match account.identical {
        Some(true) => "the same, bit for bit",
        Some(false) => "not the same:",
        None => "cannot be made again",
    };
    say("again", again);
    for Difference { field, logged, again } in account.differences.iter().take(MOST_FEATURES) {
        say("      ·", &format!("{field}: {logged} was logged, {again} is computed"));
    }
}

fn say_answer(answer: &Answer) {
    let Answer { confidence, expected_ms, p50_ms, p90_ms, p99_ms, success_probability, .. } = answer;
    let expected = format!("{expected_ms:.1} ms expected (p50 {p50_ms:.1}, p90 {p90_ms:.1}, p99 {p99_ms:.1})");
    say("answer", &format!("confidence {confidence:.2}, {expected}, succeeds {success_probability:.3}"));
}

fn print_candidates(candidates: &[Candidate]) {
    println!(
        "\n   {:<SHARD_WIDTH$}{:>8}{:>8}{:>8}{:>7}{:>7}{:>7}{:>8}",
        "ms", "cost", "network", "exec", "cold", "wait", "errors", "congest"
    );
    let shown = |(place, candidate): &(usize, &Candidate)| *place < MOST_ROWS || candidate.chosen;
    candidates.iter().enumerate().filter(shown).for_each(|(_, candidate)| print_candidate(candidate));
    if candidates.len() > MOST_ROWS {
        println!("   and {} more", candidates.len() - MOST_ROWS);
    }
    println!("   → chosen, * cheapest, m its executions by the model");
}

fn print_candidate(candidate: &Candidate) {
    let mark = |is: bool, mark: char| if is { mark } else { ' ' };
    let marks: String =
        [mark(candidate.chosen, '→'), mark(candidate.best, '*'), mark(candidate.by_model, 'm')].into_iter().collect();
    let name = cut(&candidate.shard, SHARD_WIDTH - 1);
    match (candidate.cost_ms, candidate.terms_ms) {
        (Some(cost_ms), Some(Terms { network, execution, cold, wait, errors, congestion })) => println!(
            "{marks}{name:<SHARD_WIDTH$}{cost_ms:>8.1}{network:>8.1}{execution:>8.1}{cold:>7.1}{wait:>7.1}{errors:>7.1}{congestion:>8.1}"
        ),
        _ => println!("{marks}{name:<SHARD_WIDTH$}{:>8.2} cores wanted per core", candidate.utilisation),
    }
}

/// Where the chosen and its best rival differ, of the features that tell candidates apart.
fn print_features(candidates: &[Candidate]) {
    let chosen = candidates.iter().find(|candidate| candidate.chosen);
    let rival = candidates.iter().find(|candidate| !candidate.chosen);
    let Some((chosen, rival)) = chosen.zip(rival) else { return };
    println!(
        "\n   {:<FEATURE_WIDTH$}{:>18} {:>18}",
        "features that tell them apart",
        cut(&chosen.shard, 17),
        cut(&rival.shard, 18)
    );
    let by_candidate = FEATURES.iter().filter(|feature| !feature.is_per_decision());
    // What a shard is shows in its name; what goes on there is the news.
    let differing = by_candidate.filter(|feature| {
        let [of_chosen, of_rival] = [chosen, rival].map(|candidate| candidate.features[feature.name]);
        feature.group != FeatureGroup::Shape && of_chosen.to_bits() != of_rival.to_bits()
    });
    let differing: Vec<&str> = differing.map(|feature| feature.name).collect();
    for name in differing.iter().take(MOST_FEATURES) {
        println!("   {name:<FEATURE_WIDTH$}{:>18.3} {:>18.3}", chosen.features[name], rival.features[name]);
    }
    if differing.len() > MOST_FEATURES {
        println!("   and {} more; --json holds all features of all candidates", differing.len() - MOST_FEATURES);
    }
}

fn print_rivals(rivals: &[Rival]) {
    println!("\n   {:<20}{:<SHARD_WIDTH$}{:>10}{:>12}", "others", "would have taken", "cost ms", "expected ms");
    for rival in rivals {
        let mark = if rival.agrees { '=' } else { ' ' };
        let number = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.1}"));
        let shard = cut(rival.shard.as_deref().unwrap_or("none"), SHARD_WIDTH - 1);
        let tie = rival.propensity.filter(|share| *share < 1.0);
        let tie = tie.map_or(String::new(), |share| format!("  one of {:.0}", 1.0 / share));
        let (cost, expected) = (number(rival.cost_ms), number(rival.expected_ms));
        println!(" {mark} {:<20}{shard:<SHARD_WIDTH$}{cost:>10}{expected:>12}{tie}", rival.policy);
    }
}

fn say_outcome(outcome: Option<&Outcome>) {
    println!();
    let Some(Outcome { response, .. }) = outcome else { return say("outcome", "none is in the history") };
    let ended = response.error.map_or("succeeded", ErrorClass::as_str);
    let cold = if response.cold { ", cold" } else { "" };
    let [total, exec, queue] = [response.total_ms, response.exec_ms, response.queue_ms];
    let ahead = response.queue_len;
    say("outcome", &format!("{ended} in {total:.1} ms: {exec:.1} on a core{cold}, {queue:.1} in the queue of {ahead}"));
}

fn print_what_if(what_if: &WhatIf) {
    let changes: Vec<String> =
        what_if.changes.iter().map(|change| format!("{} = {}", change.feature, change.value)).collect();
    println!();
    say("what if", &changes.join(", "));
    let (before, after) = (&what_if.before, &what_if.after);
    match what_if.choice_changes {
        true => say("", &format!("{} would be taken in the place of {}", after.shard, before.shard)),
        false => say("", &format!("{} is taken all the same", after.shard)),
    }
    println!("\n   {:<SHARD_WIDTH$}{:>9}{:>9}{:>9}{:>9}{:>9}", "ms", "exec was", "is", "cost was", "is", "change");
    for candidate in what_if.candidates.iter().take(MOST_ROWS) {
        let exec = |said: &Said| said.model_exec_ms.map_or("–".to_owned(), |ms| format!("{ms:.2}"));
        let mark = if candidate.shard == after.shard { '→' } else { ' ' };
        let (was, is) = (candidate.before.cost_ms, candidate.after.cost_ms);
        println!(
            " {mark} {:<SHARD_WIDTH$}{:>9}{:>9}{was:>9.2}{is:>9.2}{:>+9.2}",
            cut(&candidate.shard, SHARD_WIDTH - 1),
            exec(&candidate.before),
            exec(&candidate.after),
            is - was
        );
    }
}

/// A name that fits, with its end left out and nothing in it hidden.
fn cut(name: &str, width: usize) -> String {
    let name = visible(name);
    match name.chars().count() > width {
        true => name.chars().take(width - 1).chain(['…']).collect(),
        false => name,
    }
}
