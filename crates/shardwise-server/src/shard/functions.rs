//! The pure functions that a reference shard runs. What a function does follows from its name alone, so that every name
//! of any workload has a body, the same one on every shard, with the same result.
//!
//! With `key` = [`key_of`](shardwise_types::key_of) of the name:
//!
//! | what | rule |
//! |---|---|
//! | kind | `key % 4`: hashing, pricing, matrix, scan |
//! | steps at complexity 1 | 20 to 400, evenly by logarithm, from bits 8–23; a step is about 10 µs of a server core |
//! | exponent of the complexity | 0.4 to 0.9, evenly, from bits 24–39 |
//! | rounds that loading takes | 60 to 240, evenly, from bits 40–55; a round is about 11 µs |
//!
//! Floating point goes through `libm` and is never reordered: results are the same bits on every machine.

use shardwise_types::{FunctionId, HardwareClass, PlacementRequest, UsdAmount, combine_keys, unit_of};

/// Words of what a function holds when it is loaded: 64 KiB.
const TABLE_WORDS: usize = 8_192;
/// Words of the memory that scans walk: 4 MiB, more than caches near a core.
const ARENA_WORDS: usize = 1 << 19;
/// What one step does, by kind; chosen so that steps take about as long.
const MIXES_PER_STEP: usize = 1_450;
const PRICES_PER_STEP: usize = 230;
const MATRIX_SIDE: usize = 32;
const PRODUCTS_PER_STEP: usize = 2;
const READS_PER_STEP: usize = 40;
/// Results are whole numbers that every JSON reader can hold.
const RESULT_BITS: u32 = 53;

/// What a function leans on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionKind {
    /// Integer mixing in one chain.
    Hashing,
    /// Prices of options by Black and Scholes.
    Pricing,
    /// Products of small matrices.
    Matrix,
    /// A walk through memory that no cache foresees.
    Scan,
}

impl FunctionKind {
    /// All kinds, in the order of the rule.
    pub const ALL: [Self; 4] = [Self::Hashing, Self::Pricing, Self::Matrix, Self::Scan];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hashing => "hashing",
            Self::Pricing => "pricing",
            Self::Matrix => "matrix",
            Self::Scan => "scan",
        }
    }

    /// Speed on a machine of this hardware over its speed on a general one.
    pub fn speed_on(self, hardware: HardwareClass) -> f64 {
        let by_kind = match hardware {
            HardwareClass::General => [1.0; 4],
            HardwareClass::Compute => [1.3, 1.4, 1.25, 0.9],
            HardwareClass::Memory => [0.95, 0.9, 1.15, 1.6],
            // As measured on burstable virtual machines: compute 1.83 times as slow, memory 1.29 (TUNA, EuroSys 2025).
            HardwareClass::Burstable => [0.55, 0.55, 0.6, 0.78],
        };
        by_kind[self as usize]
    }
}

/// A function by its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FunctionBody {
    /// What it leans on.
    pub kind: FunctionKind,
    /// Steps at complexity 1.
    pub steps: f64,
    /// Steps grow with this power of the complexity.
    pub exponent: f64,
    /// Rounds that loading takes.
    pub load_rounds: u32,
    key: u64,
}

/// What a function holds when it is loaded.
pub(super) struct Table(Vec<u64>);

impl Table {
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }
}

/// The memory that scans walk, the same in every process.
pub(super) struct Arena(Vec<u64>);

impl Arena {
    pub(super) fn new() -> Self {
        Self((0..ARENA_WORDS as u64).map(|word| combine_keys(word, 0x5ca9)).collect())
    }
}

impl FunctionBody {
    /// The body that follows from the name.
    pub fn of(function: &FunctionId) -> Self {
        let key = function.key();
        let share = |shift: u32| ((key >> shift) & 0xffff) as f64 / 65_536.0;
        Self {
            kind: FunctionKind::ALL[(key % 4) as usize],
            steps: 20.0 * libm::pow(20.0, share(8)),
            exponent: 0.4 + 0.5 * share(24),
            load_rounds: 60 + (180.0 * share(40)) as u32,
            key,
        }
    }

    /// Steps that an input of this complexity takes; at least 1.
    pub fn steps_for(&self, complexity: f32) -> u32 {
        (self.steps * libm::pow(f64::from(complexity), self.exponent)).round().clamp(1.0, 1e6) as u32
    }

    /// Loads it; this takes time.
    pub(super) fn load(&self) -> Table {
        let mut words: Vec<u64> = (0..TABLE_WORDS as u64).map(|word| combine_keys(self.key, word)).collect();
        for round in 0..u64::from(self.load_rounds) {
            words.iter_mut().for_each(|word| *word = combine_keys(*word, round));
        }
        Table(words)
    }

    /// Runs it. The result depends on the function, the complexity, the amount and the pair, and on nothing else.
    pub(super) fn run(&self, request: &PlacementRequest, table: &Table, arena: &Arena) -> u64 {
        let amount_usd = request.amount_usd.map_or(0.0, UsdAmount::usd);
        let input = combine_keys(u64::from(request.data_complexity.to_bits()), amount_usd.to_bits());
        let seed = combine_keys(combine_keys(self.key, request.trading_pair.key()), input);
        let step = |state: u64| match self.kind {
            FunctionKind::Hashing => hash(state, table),
            FunctionKind::Pricing => price(state, table),
            FunctionKind::Matrix => (0..PRODUCTS_PER_STEP).fold(state, |state, _| multiply(state, table)),
            FunctionKind::Scan => scan(state, arena),
        };
        let state = (0..self.steps_for(request.data_complexity)).fold(seed, |state, _| step(state));
        state >> (u64::BITS - RESULT_BITS)
    }
}

fn hash(state: u64, table: &Table) -> u64 {
    (0..MIXES_PER_STEP).fold(state, |state, _| combine_keys(state, table.0[state as usize % TABLE_WORDS]))
}

fn price(state: u64, table: &Table) -> u64 {
    let mut sum = 0.0;
    for option in 0..PRICES_PER_STEP {
        let word = table.0[(state as usize).wrapping_add(option) % TABLE_WORDS];
        let (moneyness, volatility, years) =
            (0.5 + unit_of(word), 0.1 + unit_of(word << 16), 0.05 + unit_of(word << 32));
        sum += call(moneyness, volatility, years);
    }
    combine_keys(state, sum.to_bits())
}

/// Price of a call by Black and Scholes at a spot price of 1 and no interest.
fn call(strike: f64, volatility: f64, years: f64) -> f64 {
    let deviation = volatility * years.sqrt();
    let d1 = (-libm::log(strike) + 0.5 * deviation * deviation) / deviation;
    let normal = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    normal(d1) - strike * normal(d1 - deviation)
}

fn multiply(state: u64, table: &Table) -> u64 {
    let cell =
        |cell: usize| (table.0[(state as usize).wrapping_add(cell) % TABLE_WORDS] >> 40) as f64 / (1_u64 << 24) as f64;
    let a: [f64; MATRIX_SIDE * MATRIX_SIDE] = std::array::from_fn(cell);
    let b: [f64; MATRIX_SIDE * MATRIX_SIDE] = std::array::from_fn(|place| cell(place + MATRIX_SIDE * MATRIX_SIDE));
    let mut sum = 0.0;
    for row in 0..MATRIX_SIDE {
        let mut product = [0.0; MATRIX_SIDE];
        for (inner, from) in b.chunks_exact(MATRIX_SIDE).enumerate() {
            let factor = a[row * MATRIX_SIDE + inner];
            product.iter_mut().zip(from).for_each(|(cell, value)| *cell += factor * value);
        }
        sum += product.iter().sum::<f64>();
    }
    combine_keys(state, sum.to_bits())
}

fn scan(state: u64, arena: &Arena) -> u64 {
    (0..READS_PER_STEP).fold(state, |state, _| combine_keys(state, arena.0[state as usize % ARENA_WORDS]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(function: &str, complexity: f32) -> PlacementRequest {
        let json = format!(
            r#"{{"function":"{function}","type":"PriceUpdated","protocol":"aave","dataComplexity":{complexity},"eventAt":0}}"#
        );
        PlacementRequest::from_json(&json).unwrap()
    }

    fn run(function: &str, complexity: f32) -> u64 {
        let body = FunctionBody::of(&function.into());
        body.run(&request(function, complexity), &body.load(), &Arena::new())
    }

    #[test]
    fn a_price_is_the_textbooks() {
        // Hull: spot 42, strike 40, 10 % interest, 20 %, half a year costs 4.76; here the strike is discounted
        // beforehand.
        let strike = 40.0 * (-0.05_f64).exp() / 42.0;
        assert!((42.0 * call(strike, 0.2, 0.5) - 4.76).abs() < 0.005);
    }

    #[test]
    fn results_follow_from_name_and_input_alone() {
        for name in ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"] {
            assert_eq!(run(name, 1.5), run(name, 1.5), "{name}");
            assert_ne!(run(name, 1.5), run(name, 1.25), "{name}: another input");
            assert!(run(name, 1.5) < 1 << RESULT_BITS);
        }
    }

    #[test]
    fn names_of_a_workload_get_all_kinds_and_sizes_within_the_rule() {
        let bodies: Vec<_> = (0..400).map(|n| FunctionBody::of(&format!("arbitrage-function-{n:03}").into())).collect();
        for kind in FunctionKind::ALL {
            let share = bodies.iter().filter(|body| body.kind == kind).count() as f64 / 400.0;
            assert!((share - 0.25).abs() < 0.08, "{}: {share}", kind.as_str());
        }
        for body in &bodies {
            assert!((20.0..400.0).contains(&body.steps) && (0.4..0.9).contains(&body.exponent), "{body:?}");
            assert!((60..240).contains(&body.load_rounds), "{body:?}");
            assert!(body.steps_for(4.0) > body.steps_for(1.0));
        }
        assert_eq!(bodies[0].steps_for(1e-30), 1);
    }

    #[test]
    fn the_rule_does_not_change() {
        let body = FunctionBody::of(&"arbitrage-function-047".into());
        assert_eq!((body.kind, body.steps_for(1.0), body.load_rounds), (FunctionKind::Hashing, 52, 169));
    }
}
