//! Does a challenger foretell better than what it would replace? A test that may be looked at after every decision.
//!
//! Both foretell the same execution; the difference of how far they are off, live less challenger, is between -1 and 1. If
//! the challenger is no better, the mean of the differences is at most 0 given all that came before, and nobody grows rich by
//! betting that the next one is above 0: from 1, the capital exceeds x at any time with probability 1/x at most (Ville's
//! inequality). The bets are fixed shares of the capital, and what counts is the average capital of all shares
//! (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024).

use serde::{Deserialize, Serialize};

/// Shares of the capital that are bet: from where one decision in a thousand tells to where all do.
const SHARES: [f64; 9] = [0.5, 0.25, 0.125, 0.0625, 0.031_25, 0.015_625, 0.007_812_5, 0.003_906_25, 0.001_953_125];

/// Capital from which the challenger is taken to be better: by chance at most once in this many challengers.
pub const REQUIRED_CAPITAL: f64 = 100.0;

/// What is foretold of one execution, and what came, in ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foretold {
    /// By what serves.
    pub live_ms: f64,
    /// By the challenger.
    pub challenger_ms: f64,
    /// How long it took.
    pub measured_ms: f64,
}

/// Bets on the challenger, and on what serves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ShadowTest {
    /// Executions that were compared.
    pub compared: u64,
    /// Mean of |ln measured − ln foretold| of what serves less that of the challenger, each difference cut to ±1: above 0
    /// when the challenger is nearer.
    pub mean_difference: f64,
    /// Mean of (ln measured − ln foretold)² of the challenger.
    pub mean_square: f64,
    ln_better: [f64; SHARES.len()],
    ln_worse: [f64; SHARES.len()],
}

impl ShadowTest {
    /// Learns what became of an execution. What is no time teaches nothing.
    pub fn learn(&mut self, foretold: &Foretold) {
        let Foretold { live_ms, challenger_ms, measured_ms } = *foretold;
        let error = |ms: f64| (measured_ms / ms).ln().abs();
        let (live, challenger) = (error(live_ms), error(challenger_ms));
        let difference = (live - challenger).clamp(-1.0, 1.0);
        if difference.is_nan() {
            return;
        }
        self.compared += 1;
        let new = 1.0 / self.compared as f64;
        self.mean_difference += new * (difference - self.mean_difference);
        self.mean_square += new * (challenger * challenger - self.mean_square);
        for ((better, worse), share) in self.ln_better.iter_mut().zip(&mut self.ln_worse).zip(SHARES) {
            *better += (share * difference).ln_1p();
            *worse += (-share * difference).ln_1p();
        }
    }

    /// What a stake of 1 on the challenger has become.
    pub fn capital_on_challenger(&self) -> f64 {
        average(&self.ln_better)
    }

    /// What a stake of 1 on what serves has become.
    pub fn capital_on_live(&self) -> f64 {
        average(&self.ln_worse)
    }

    /// Root mean square of ln measured − ln foretold of the challenger, which its error on held-out rows promises; `None`
    /// when nothing was compared.
    pub fn challenger_rmse(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.mean_square.sqrt())
    }

    /// Whether it is shown that the challenger foretells better.
    pub fn is_better(&self) -> bool {
        self.capital_on_challenger() >= REQUIRED_CAPITAL
    }
}

/// The average of the capitals, which may be beyond all numbers.
fn average(ln_capitals: &[f64]) -> f64 {
    ln_capitals.iter().map(|ln| ln.min(600.0).exp()).sum::<f64>() / ln_capitals.len() as f64
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    /// What a normal draw of variance 1 is about.
    fn normal(rng: &mut impl Rng) -> f64 {
        (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
    }

    /// A test of so many executions, where the logs of what is foretold are off by so much.
    fn test(rng: &mut impl Rng, n: usize, live_off: f64, challenger_off: f64) -> (ShadowTest, bool) {
        let mut test = ShadowTest::default();
        let mut ever_better = false;
        for _ in 0..n {
            let measured_ms = 10.0 * (0.3 * normal(rng)).exp();
            let mut foretell = |off: f64| 10.0 * (off * normal(rng)).exp();
            let [live_ms, challenger_ms] = [live_off, challenger_off].map(&mut foretell);
            test.learn(&Foretold { live_ms, challenger_ms, measured_ms });
            ever_better |= test.is_better();
        }
        (test, ever_better)
    }

    #[test]
    fn equals_are_rarely_told_apart_however_often_one_looks() {
        let mut rng = StdRng::seed_from_u64(1);
        let told_apart = (0..300).filter(|_| test(&mut rng, 2_000, 0.2, 0.2).1).count();
        // One in a hundred at most is promised; twelve of 300 would come by chance once in ten thousand times.
        assert!(told_apart < 12, "{told_apart} of 300");
    }

    #[test]
    fn who_is_nearer_is_found_and_who_is_not_is_not() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..20 {
            let (better, _) = test(&mut rng, 5_000, 0.25, 0.15);
            assert!(better.is_better() && better.mean_difference > 0.0 && better.capital_on_live() < 1.0, "{better:?}");
            let (worse, ever_better) = test(&mut rng, 5_000, 0.15, 0.25);
            assert!(
                !ever_better && worse.capital_on_live() >= REQUIRED_CAPITAL && worse.mean_difference < 0.0,
                "{worse:?}"
            );
        }
    }

    #[test]
    fn what_is_no_time_teaches_nothing_and_all_else_counts_at_most_one() {
        let mut test = ShadowTest::default();
        for ms in [f64::NAN, -1.0] {
            test.learn(&Foretold { live_ms: ms, challenger_ms: 1.0, measured_ms: 1.0 });
        }
        assert_eq!(test, ShadowTest::default());
        test.learn(&Foretold { live_ms: 1e-300, challenger_ms: 1.0, measured_ms: 1.0 });
        assert_eq!((test.compared, test.mean_difference), (1, 1.0));
        for _ in 0..10_000 {
            test.learn(&Foretold { live_ms: 1e9, challenger_ms: 1.0, measured_ms: 1.0 });
        }
        assert!(test.capital_on_challenger().is_finite() && test.is_better());
        assert!(test.capital_on_live() < 1e-3);
    }
}
