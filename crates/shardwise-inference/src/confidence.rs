//! How sure the choice is: probabilities that one candidate's cost is below another's.
//!
//! A cost is taken as normal around its prediction, with the spread of its uncertain terms; candidates as independent
//! (pairwise Gaussian approximation). That errs, and in the same way for all fleets that were tried: [`calibrated`] mends it.

use arrayvec::ArrayVec;
use shardwise_types::Confidence;

/// Candidates among which the best is looked for.
pub(crate) const MOST_COMPARED: usize = 8;
/// Within this share of the best counts as right.
const CLOSE_SHARE: f64 = 0.10;
/// Within this many ms of the best counts as right.
const CLOSE_MS: f64 = 5.0;

/// A candidate's cost and how far off it may be, in ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Uncertain {
    pub(crate) cost_ms: f64,
    pub(crate) sd_ms: f64,
}

/// Probability that the chosen cost is within 10 % and 5 ms of the least of the others.
pub(crate) fn close_to_best(chosen: Uncertain, others: impl Iterator<Item = Uncertain>) -> Confidence {
    let probability: f64 = others
        .map(|other| {
            let slack = (CLOSE_SHARE * other.cost_ms).max(0.0) + CLOSE_MS;
            below(chosen, Uncertain { cost_ms: other.cost_ms + slack, ..other })
        })
        .product();
    Confidence::clamped(probability)
}

/// Probability of each candidate to be the best of all, which add up to one: the products of the pairwise ones over their sum,
/// since pairs that share a candidate are not independent, and products alone are too small.
pub(crate) fn best(candidates: &[Uncertain]) -> ArrayVec<f64, MOST_COMPARED> {
    let mut products: ArrayVec<f64, MOST_COMPARED> = candidates.iter().take(MOST_COMPARED).map(|_| 1.0).collect();
    for one in 0..products.len() {
        for other in one + 1..products.len() {
            let is_below = below(candidates[one], candidates[other]);
            products[one] *= is_below;
            products[other] *= 1.0 - is_below;
        }
    }
    let sum: f64 = products.iter().sum();
    if sum > 0.0 {
        products.iter_mut().for_each(|product| *product /= sum);
    }
    products
}

/// What shares of choices were within the margin, by raw confidence: isotonic regression on simulated fleets 1 to 3 with seeds 1
/// to 6, where the truth is known: 56,000 choices at four loads with one and four routers. Between the knots it is linear.
const KNOTS: [(f64, f64); 16] = [
    (0.0, 0.062),
    (0.03, 0.281),
    (0.076, 0.426),
    (0.126, 0.576),
    (0.176, 0.674),
    (0.225, 0.754),
    (0.275, 0.802),
    (0.325, 0.848),
    (0.375, 0.866),
    (0.425, 0.899),
    (0.474, 0.911),
    (0.524, 0.926),
    (0.624, 0.948),
    (0.775, 0.958),
    (0.9, 0.968),
    (1.0, 0.970),
];

/// From raw confidence to the share of choices that were right when that was said.
pub(crate) fn calibrated(raw: Confidence) -> Confidence {
    let raw = raw.value();
    let above = KNOTS.iter().position(|(x, _)| raw <= *x).unwrap_or(KNOTS.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (KNOTS[above - 1], KNOTS[above]);
    Confidence::clamped(y0 + (y1 - y0) * ((raw - x0) / (x1 - x0)).clamp(0.0, 1.0))
}

/// P(Z ≤ z), off by at most 1.5e-7: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.2.19. Without an
/// exponential, because a decision asks for some 30 of them.
fn standard_normal_cdf(z: f64) -> f64 {
    const LAST: f64 = 0.000_005_383_0;
    const BEFORE: [f64; 6] = [0.000_048_890_6, 0.000_038_003_6, 0.003_277_626_3, 0.021_141_006_1, 0.049_867_347_0, 1.0];
    let polynomial = BEFORE.iter().fold(LAST, |sum, one| sum * z.abs() + one);
    let above = 0.5 * polynomial.powi(-16);
    if z > 0.0 { 1.0 - above } else { above }
}

/// P(a < b) for independent normals; ½ when nothing tells them apart.
fn below(a: Uncertain, b: Uncertain) -> f64 {
    let sd = (a.sd_ms * a.sd_ms + b.sd_ms * b.sd_ms).sqrt();
    let gap = b.cost_ms - a.cost_ms;
    if sd > 0.0 {
        return standard_normal_cdf(gap / sd);
    }
    match gap.total_cmp(&0.0) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cost_ms: f64) -> Uncertain {
        Uncertain { cost_ms, sd_ms: 5.0 }
    }

    #[test]
    fn the_farther_the_runner_up_the_surer() {
        let sure = |gap: f64| close_to_best(at(30.0), [at(30.0 + gap)].into_iter()).value();
        assert!(sure(40.0) > sure(10.0) && sure(10.0) > sure(0.0) && sure(0.0) > 0.5);
        assert!(sure(40.0) > 0.999);
        assert_eq!(close_to_best(at(30.0), std::iter::empty()).value(), 1.0, "alone is best");
    }

    #[test]
    fn normal_probabilities_are_those_of_the_error_function() {
        for step in -4_000..=4_000 {
            let z = f64::from(step) / 100.0;
            let exact = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
            assert!((standard_normal_cdf(z) - exact).abs() < 1.5e-7, "{z}");
        }
        assert_eq!([f64::NEG_INFINITY, 0.0, f64::INFINITY].map(standard_normal_cdf), [0.0, 0.5, 1.0]);
        assert!(standard_normal_cdf(f64::NAN).is_nan());
    }

    #[test]
    fn calibration_keeps_the_order() {
        let levels: Vec<f64> =
            (0..=100).map(|p| calibrated(Confidence::clamped(f64::from(p) / 100.0)).value()).collect();
        assert!(levels.is_sorted() && levels[0] < levels[100] && levels[100] < 1.0);
    }

    #[test]
    fn equals_share_the_first_place() {
        let equals = best(&[at(30.0); MOST_COMPARED]);
        assert!(equals.iter().all(|share| (share - 1.0 / 8.0).abs() < 1e-12), "{equals:?}");
        let unequal = best(&[at(30.0), at(33.0), at(60.0)]);
        assert!(unequal.is_sorted_by(|more, less| more > less), "{unequal:?}");
        assert!((unequal.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(best(&[]).is_empty());
        assert_eq!(below(Uncertain { sd_ms: 0.0, ..at(1.0) }, Uncertain { sd_ms: 0.0, ..at(2.0) }), 1.0);
    }
}
