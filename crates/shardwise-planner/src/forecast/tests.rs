//! Series of known shape: who should win, and what must hold of any forecast.

use super::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const MINUTE_MS: f64 = 60_000.0;

fn series(values: Vec<f64>) -> Series {
    Series { start: Timestamp::default(), step_minutes: 1, values }
}

fn solve(series: &Series, threshold: Option<f64>) -> Result<Forecast, ForecastError> {
    let problem = ForecastProblem { series, market: None, most: 1.0, threshold, now: series.end() };
    forecast(&problem, &ForecastSettings::default())
}

fn noise(seed: u64, steps: usize) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..steps).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A walk keeps no promise: what it is now is all that can be known.
fn walk(seed: u64) -> Series {
    let mut level: f64 = 0.5;
    let step = |noise: f64| {
        level = (level + noise * 0.02).clamp(0.0, 1.0);
        level
    };
    series(noise(seed, 1500).into_iter().map(step).collect())
}

/// A wave of two hours that crosses .85.
fn wave(seed: u64) -> Series {
    let at = |(minute, noise): (usize, f64)| {
        0.65 + 0.3 * (minute as f64 / 120.0 * std::f64::consts::TAU).sin() + noise * 0.02
    };
    series(noise(seed, 1500).into_iter().enumerate().map(at).collect())
}

#[test]
fn a_walk_switches_the_forecast_off() {
    let on = (11..51).filter(|seed| solve(&walk(*seed), None).unwrap().back_test.switched_off.is_none()).count();
    assert!(on <= 4, "{on} of 40 walks were taken for foretellable");
}

#[test]
fn a_wave_is_foretold_and_raises_its_alarm_in_time() {
    let whole = wave(11);
    // Rising, at .77, ten minutes before it crosses .85.
    let rising = series(whole.values[..1448].to_vec());
    let forecast = solve(&rising, Some(0.85)).unwrap();
    assert_eq!(forecast.back_test.switched_off, None, "{:?}", forecast.back_test);
    assert!(forecast.alarm && forecast.peak.value > 0.85, "{:?}", forecast.peak);
    let falling = solve(&series(whole.values[..1495].to_vec()), Some(0.85)).unwrap();
    assert!(!falling.alarm, "{:?}", falling.peak);
}

#[test]
fn far_from_the_threshold_nothing_can_be_shown() {
    let quiet = series(noise(3, 600).into_iter().map(|noise| 0.2 + noise * 0.01).collect());
    let forecast = solve(&quiet, Some(0.85)).unwrap();
    assert_eq!((forecast.method, forecast.back_test.switched_off), (Method::LastValue, Some(SwitchedOff::NoEvents)));
}

#[test]
fn a_day_that_repeats_is_known_from_the_day_before() {
    let quarter = |at: usize| if at % 96 < 4 { 0.9 } else { 0.3 };
    let values = noise(5, 20 * 96).iter().enumerate().map(|(at, noise)| quarter(at) + noise * 0.01).collect();
    let days = Series { step_minutes: 15, ..series(values) };
    let forecast = solve(&days, Some(0.85)).unwrap();
    assert_eq!(forecast.back_test.switched_off, None, "{:?}", forecast.back_test);
    assert!(forecast.alarm, "midnight is a quarter of an hour away: {:?}", forecast.peak);
}

#[test]
fn intervals_hold_what_they_promise() {
    let held: usize = (11..61)
        .map(|seed| {
            let whole = walk(seed);
            let past = series(whole.values[..1400].to_vec());
            let five = solve(&past, None).unwrap().ahead[0];
            usize::from((five.low..=five.high).contains(&whole.values[1404]))
        })
        .sum();
    assert!((38..=50).contains(&held), "{held} of 50 where 45 are promised");
}

#[test]
fn nothing_is_foretold_of_the_past() {
    let whole = wave(12);
    let at = |minutes: f64| ForecastProblem {
        series: &whole,
        market: None,
        most: 1.0,
        threshold: None,
        now: whole.end().plus_millis(minutes * MINUTE_MS),
    };
    let late = forecast(&at(7.0), &ForecastSettings::default()).unwrap();
    assert_eq!(late.ahead.iter().map(|ahead| ahead.minutes).collect::<Vec<_>>(), [10, 15]);
    let error = forecast(&at(15.0), &ForecastSettings::default()).unwrap_err();
    assert!(matches!(error, ForecastError::Stale { .. }) && error.to_string().contains("15 minutes"), "{error}");
}

#[test]
fn too_little_and_too_old_is_said() {
    assert!(matches!(solve(&series(vec![0.5; 20]), None), Err(ForecastError::TooShort { steps: 20, .. })));
    let mut gap = wave(13);
    gap.values.extend([f64::NAN; 6]);
    assert!(matches!(solve(&gap, None), Err(ForecastError::Gap { .. })));
    gap.values.truncate(1504);
    assert!(solve(&gap, None).unwrap().missing > 0.0, "a short gap is closed, and told");
    let settings = ForecastSettings { horizons_minutes: vec![], ..ForecastSettings::default() };
    let problem = ForecastProblem { series: &gap, market: None, most: 1.0, threshold: None, now: gap.end() };
    assert!(matches!(forecast(&problem, &settings), Err(ForecastError::Invalid(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn forecasts_stay_within_what_there_can_be(
        values in prop::collection::vec(prop_oneof![4 => 0.0..1.0_f64, 1 => Just(f64::NAN), 1 => Just(1.0)], 150..400),
        threshold in prop::option::of(0.0..1.0_f64),
    ) {
        if let Ok(forecast) = solve(&series(values), threshold) {
            for ahead in forecast.ahead.iter().chain([&forecast.peak]) {
                prop_assert!(0.0 <= ahead.low && ahead.low <= ahead.value, "{ahead:?}");
                prop_assert!(ahead.value <= ahead.high && ahead.high <= 1.0, "{ahead:?}");
            }
            prop_assert!((0.0..=1.0).contains(&forecast.ready_for), "{forecast:?}");
        }
    }
}
