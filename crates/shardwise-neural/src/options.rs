//! How to train; the same options on the same rows give the same head.

use clap::Args;
use shardwise_models::NeuralProblem;

/// Units that a head may have in a layer.
const MAX_WIDTH: usize = shardwise_models::MAX_UNITS;

/// How to train.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct FitOptions {
    /// Units of each hidden layer.
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Hidden layers.
    #[arg(long, default_value_t = 2)]
    pub layers: usize,
    /// Most passes over the rows; training stops earlier when later rows gain nothing.
    #[arg(long, default_value_t = 30)]
    pub epochs: usize,
    /// Passes without a gain on later rows before training stops.
    #[arg(long, default_value_t = 5)]
    pub patience: usize,
    /// Rows of a step.
    #[arg(long, default_value_t = 512)]
    pub batch: usize,
    /// Size of the first steps; it falls to nothing along half a cosine.
    #[arg(long, default_value_t = 2e-3)]
    pub learning_rate: f64,
    /// Share of the learning rate by which weights shrink with each step.
    #[arg(long, default_value_t = 0.3)]
    pub weight_decay: f32,
    /// Seed of first weights and of the order of rows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            width: 64,
            layers: 2,
            epochs: 30,
            patience: 5,
            batch: 512,
            learning_rate: 2e-3,
            weight_decay: 0.3,
            seed: 1,
        }
    }
}

/// Says why there is no head.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// An option makes no sense.
    #[error("--{name} is {value}: it must be {rule}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        rule: &'static str,
    },
    /// Training left the numbers.
    #[error("the error on later rows is no number after pass {epoch}: take a smaller --learning-rate")]
    Diverged {
        /// The pass, from 1.
        epoch: usize,
    },
    /// What was trained cannot be served.
    #[error("what was trained cannot be served: {0}")]
    Head(#[from] NeuralProblem),
}

impl FitOptions {
    /// Checks that the options make sense.
    ///
    /// # Errors
    /// Names the option and what it must be.
    pub(crate) fn check(&self) -> Result<(), FitError> {
        let rate = self.learning_rate;
        for (name, value, holds, rule) in [
            ("width", self.width as f64, (1..=MAX_WIDTH).contains(&self.width), "1 to 512"),
            ("layers", self.layers as f64, (1..=8).contains(&self.layers), "1 to 8"),
            ("epochs", self.epochs as f64, (1..=10_000).contains(&self.epochs), "1 to 10000"),
            ("patience", self.patience as f64, self.patience >= 1, "1 or more"),
            ("batch", self.batch as f64, self.batch >= 1, "1 or more"),
            ("learning-rate", rate, rate > 0.0 && rate <= 1.0, "above 0, at most 1"),
            ("weight-decay", self.weight_decay.into(), (0.0..=1.0).contains(&self.weight_decay), "0 to 1"),
        ] {
            if !holds {
                return Err(FitError::Option { name, value, rule });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: FitOptions,
    }

    #[test]
    fn the_command_line_has_the_same_defaults() {
        assert_eq!(Line::parse_from(["shardwise-neural"]).options, FitOptions::default());
    }

    #[test]
    fn options_that_make_no_sense_are_named() {
        let refusal = |change: fn(&mut FitOptions)| {
            let mut options = FitOptions::default();
            change(&mut options);
            options.check().expect_err("a refusal").to_string()
        };
        assert!(refusal(|options| options.width = 513).contains("--width is 513"));
        assert!(refusal(|options| options.batch = 0).contains("--batch is 0"));
        assert!(refusal(|options| options.learning_rate = f64::NAN).contains("--learning-rate is NaN"));
        assert!(refusal(|options| options.weight_decay = -0.5).contains("--weight-decay is -0.5"));
    }
}
