//! How forecasts do on real series, beside the last value.
//!
//! `cargo run --release -p shardwise-planner --example forecast_study -- SERIES.csv`
//!
//! The file has a line for each step, `data set,series,minutes of a step,value`, in order, without a head; an empty value is
//! missing. A series' first 70 % are learned from and chosen by, the rest is foretold step by step. Alarms are for the level
//! that the learned part passes one step in ten; a miss costs 4, a false alarm 1.

use std::collections::BTreeMap;

use shardwise_planner::{Fitted, ForecastProblem, ForecastSettings, Method, Prepared, Series, SwitchedOff, Target};
use shardwise_types::Timestamp;

const LEARNED: f64 = 0.7;
const ALARM_QUANTILE: f64 = 0.9;

/// Sums over the held-out steps of a series.
#[derive(Default)]
struct Held {
    steps: [f64; 2],
    last_value: [f64; 2],
    by_error: [f64; 2],
    lags: [f64; 2],
    boosted: [f64; 2],
    alarm_steps: f64,
    alarm_last_value: f64,
    alarm_chosen: f64,
    alarm_rival: f64,
}

struct Studied {
    held: Held,
    by_error: Method,
    by_alarm: Method,
    off: Option<SwitchedOff>,
}

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| {
        eprintln!("usage: forecast_study SERIES.csv");
        std::process::exit(2);
    });
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        eprintln!("{path}: {error}");
        std::process::exit(1);
    });
    println!(
        "series | MAE 5 min: last value, lags, boosted, chosen | 15 min | chosen by error, by alarms | alarm cost: last value, chosen"
    );
    let mut sets: BTreeMap<String, Vec<Studied>> = BTreeMap::new();
    for ((set, name), series) in read(&text) {
        let studied = study(&series);
        let (held, mae) = (&studied.held, |sum: f64, at: usize| sum / studied.held.steps[at].max(1.0));
        let cost = |sum: f64| sum / held.alarm_steps.max(1.0);
        println!(
            "{set} {name} | {:.3} {:.3} {:.3} {:.3} | {:.3} {:.3} {:.3} {:.3} | {} {}{} | {:.4} {:.4} {:.4}",
            mae(held.last_value[0], 0),
            mae(held.lags[0], 0),
            mae(held.boosted[0], 0),
            mae(held.by_error[0], 0),
            mae(held.last_value[1], 1),
            mae(held.lags[1], 1),
            mae(held.boosted[1], 1),
            mae(held.by_error[1], 1),
            studied.by_error.as_str(),
            studied.by_alarm.as_str(),
            studied.off.map_or("", |off| if off == SwitchedOff::NoEvents { " (no events)" } else { " (not better)" }),
            cost(held.alarm_last_value),
            cost(held.alarm_chosen),
            cost(held.alarm_rival),
        );
        sets.entry(set).or_default().push(studied);
    }
    println!(
        "\nset | series | ratio of MAE to the last value's, mean of series, 5 and 15 min | off, rightly (the best rival is no better held out) | on and better held out | alarm cost ratio"
    );
    for (set, studied) in &sets {
        summary(set, studied);
    }
}

fn summary(set: &str, studied: &[Studied]) {
    let count = studied.len() as f64;
    let ratio = |at: usize| {
        let of = |one: &Studied| one.held.by_error[at] / one.held.last_value[at].max(f64::MIN_POSITIVE);
        studied.iter().map(of).sum::<f64>() / count
    };
    let off = studied.iter().filter(|one| one.off.is_some()).count();
    let on: Vec<&Studied> = studied.iter().filter(|one| one.off.is_none()).collect();
    let rightly =
        studied.iter().filter(|one| one.off.is_some() && one.held.alarm_rival >= one.held.alarm_last_value).count();
    let better = on.iter().filter(|one| one.held.alarm_chosen < one.held.alarm_last_value).count();
    let sum = |of: fn(&Held) -> f64| studied.iter().map(|one| of(&one.held)).sum::<f64>();
    let cost = sum(|held| held.alarm_chosen) / sum(|held| held.alarm_last_value).max(f64::MIN_POSITIVE);
    let without = sum(|held| held.alarm_rival) / sum(|held| held.alarm_last_value).max(f64::MIN_POSITIVE);
    println!(
        "{set} | {} | {:.3} {:.3} | {off} of {}, {rightly} rightly | {better} of {} | {cost:.3} (without proof {without:.3})",
        studied.len(),
        ratio(0),
        ratio(1),
        studied.len(),
        on.len(),
    );
}

fn read(text: &str) -> BTreeMap<(String, String), Series> {
    let mut all: BTreeMap<(String, String), Series> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let [set, name, step, value] = fields[..] else {
            eprintln!("a line has four fields, not: {line}");
            std::process::exit(1);
        };
        let step_minutes = step.parse().unwrap_or(1);
        let series = all.entry((set.to_owned(), name.to_owned())).or_insert_with(|| Series {
            start: Timestamp::default(),
            step_minutes,
            values: vec![],
        });
        series.values.push(value.parse().unwrap_or(f64::NAN));
    }
    all
}

fn study(series: &Series) -> Studied {
    let settings = ForecastSettings { most_test_steps: usize::MAX, ..ForecastSettings::default() };
    let prepared = Prepared::new(series, None, 1);
    let end = (prepared.len() as f64 * LEARNED) as usize;
    let mut learned: Vec<f64> = series.values[..end].iter().copied().filter(|value| value.is_finite()).collect();
    learned.sort_by(f64::total_cmp);
    let threshold = learned[(learned.len() as f64 * ALARM_QUANTILE) as usize];
    let fitted = |threshold: Option<f64>| {
        let problem = ForecastProblem { series, market: None, most: f64::INFINITY, threshold, now: series.end() };
        Fitted::on(&prepared, end, &problem, &settings)
    };
    let (by_error, by_alarm) = (fitted(None), fitted(Some(threshold)));
    // Who would have been taken if whoever seems better were.
    let rivals = by_alarm.back_test.scores.iter().filter(|score| score.method != Method::LastValue);
    let rival = rivals.min_by(|a, b| a.loss.total_cmp(&b.loss)).map_or(Method::LastValue, |score| score.method);
    let step = |minutes: u32| minutes.div_ceil(series.step_minutes).max(1) as usize;
    let mut held = Held::default();
    for at in end..prepared.len() {
        let past = prepared.until(at);
        for (place, target) in [Target::Ahead(step(5)), Target::Ahead(step(15))].into_iter().enumerate() {
            let error = |method: Method, truth: f64| by_error.value(method, &past, target).map(|it| (it - truth).abs());
            if let Some(truth) = prepared.truth(at, target)
                && let Some(last_value) = error(Method::LastValue, truth)
            {
                held.steps[place] += 1.0;
                held.last_value[place] += last_value;
                held.lags[place] += error(Method::Lags, truth).unwrap_or(last_value);
                held.boosted[place] += error(Method::Boosted, truth).unwrap_or(last_value);
                held.by_error[place] += error(by_error.back_test.chosen, truth).unwrap_or(last_value);
            }
        }
        if let Some(peak) = prepared.truth(at, Target::PeakWithin(step(15))) {
            let alarm = |method: Method| by_alarm.ready_for(method, &past).is_some_and(|level| level >= threshold);
            let cost = |method: Method| match (alarm(method), peak >= threshold) {
                (false, true) => settings.miss,
                (true, false) => settings.false_alarm,
                _ => 0.0,
            };
            held.alarm_steps += 1.0;
            held.alarm_last_value += cost(Method::LastValue);
            held.alarm_chosen += cost(by_alarm.back_test.chosen);
            held.alarm_rival += cost(rival);
        }
    }
    Studied {
        held,
        by_error: by_error.back_test.chosen,
        by_alarm: by_alarm.back_test.chosen,
        off: by_alarm.back_test.switched_off,
    }
}
