//! Pauses that grow while something fails.

use std::time::Duration;

/// The pause before the next attempt: none at first, then doubling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: Duration::ZERO }
    }

    pub(crate) fn next_pause(&self) -> Duration {
        self.pause
    }

    pub(crate) fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(self.first, self.longest.max(self.first));
    }

    pub(crate) fn reset(&mut self) {
        self.pause = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let mut pauses = Vec::new();
        for _ in 0..4 {
            pauses.push(backoff.next_pause().as_millis());
            backoff.failed();
        }
        assert_eq!(pauses, [0, 100, 200, 350]);
        backoff.reset();
        assert_eq!(backoff.next_pause(), Duration::ZERO);
    }
}
