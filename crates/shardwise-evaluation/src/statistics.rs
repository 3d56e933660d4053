//! Paired comparison over seeds: the mean log-ratio with its Student-t interval. No bootstrap, no tests of significance.

/// A ratio of two policies over the same seeds, below 1 when the first is lower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RatioInterval {
    /// Geometric mean of the ratios.
    pub(crate) ratio: f64,
    /// Bounds of the 95 % interval; `None` with fewer than two seeds.
    pub(crate) bounds: Option<(f64, f64)>,
}

/// Summarises log-ratios, one per seed; `None` without any.
pub(crate) fn ratio_interval(log_ratios: &[f64]) -> Option<RatioInterval> {
    if log_ratios.is_empty() {
        return None;
    }
    let count = log_ratios.len() as f64;
    let mean = log_ratios.iter().sum::<f64>() / count;
    let bounds = (log_ratios.len() > 1).then(|| {
        let squares: f64 = log_ratios.iter().map(|x| (x - mean).powi(2)).sum();
        let standard_error = (squares / (count - 1.0) / count).sqrt();
        let half_width = student_t_975(log_ratios.len() - 1) * standard_error;
        ((mean - half_width).exp(), (mean + half_width).exp())
    });
    Some(RatioInterval { ratio: mean.exp(), bounds })
}

/// 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
const STUDENT_T_975: [f64; 30] = [
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
    2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484,
    2.0452, 2.0423,
];

/// The 97.5 % quantile of Student's t: tabled to 30 degrees of freedom, beyond that the expansion around the normal
/// quantile (Abramowitz and Stegun 26.7.5), which is right to four digits there.
pub(crate) fn student_t_975(degrees: usize) -> f64 {
    if let Some(&tabled) = degrees.checked_sub(1).and_then(|i| STUDENT_T_975.get(i)) {
        return tabled;
    }
    let (z, v) = (1.959_963_985_f64, degrees as f64);
    z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_textbook_one() {
        // Mean 0.2, standard deviation 0.1, n = 3: half width 4.3027 × 0.1 / √3 = 0.24842.
        let interval = ratio_interval(&[0.1, 0.2, 0.3]).unwrap();
        let (low, high) = interval.bounds.unwrap();
        assert!((interval.ratio.ln() - 0.2).abs() < 1e-12);
        assert!((low.ln() - (0.2 - 0.248_42)).abs() < 1e-4, "{}", low.ln());
        assert!((high.ln() - (0.2 + 0.248_42)).abs() < 1e-4, "{}", high.ln());
    }

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(ratio_interval(&[0.0]), Some(RatioInterval { ratio: 1.0, bounds: None }));
        assert_eq!(ratio_interval(&[]), None);
    }

    #[test]
    fn quantiles_go_on_smoothly_beyond_the_table() {
        for (degrees, expected) in [(31, 2.0395), (40, 2.0211), (60, 2.0003), (120, 1.9799)] {
            assert!((student_t_975(degrees) - expected).abs() < 2e-4, "{degrees}: {}", student_t_975(degrees));
        }
    }
}
