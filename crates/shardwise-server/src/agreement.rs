//! How often a challenger would have decided alike of late.

use std::sync::{Mutex, PoisonError};

use shardwise_types::Timestamp;

/// Windows by what they are called, in minutes.
pub(crate) const WINDOWS: [(&str, u64); 2] = [("5m", 5), ("1h", 60)];
/// Minutes that are remembered.
const MINUTES: usize = 60;
const MINUTE_NS: u64 = 60_000_000_000;

/// The decisions of a minute on which a challenger was heard.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    /// Since 1970.
    number: u64,
    asked: u64,
    agreed: u64,
}

/// Counts by the minute, so that old opinions are forgotten.
#[derive(Debug)]
pub(crate) struct Agreement(Mutex<[Minute; MINUTES]>);

impl Default for Agreement {
    fn default() -> Self {
        Self(Mutex::new([Minute::default(); MINUTES]))
    }
}

fn minute(at: Timestamp) -> u64 {
    at.nanos().max(0).cast_unsigned() / MINUTE_NS
}

impl Agreement {
    /// Counts what was said at `now`.
    pub(crate) fn count(&self, agrees: bool, now: Timestamp) {
        let number = minute(now);
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut minutes[(number % MINUTES as u64) as usize];
        if place.number != number {
            *place = Minute { number, ..Minute::default() };
        }
        place.asked += 1;
        place.agreed += u64::from(agrees);
    }

    /// The share in [0, 1] that it would have decided alike, in this minute and those before it that belong to the window; none
    /// where it was not heard.
    pub(crate) fn share(&self, window_minutes: u64, now: Timestamp) -> Option<f64> {
        let last = minute(now);
        let minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let within = minutes.iter().filter(|minute| minute.number <= last && last - minute.number < window_minutes);
        let (asked, agreed) = within.fold((0, 0), |(asked, agreed), m| (asked + m.asked, agreed + m.agreed));
        (asked > 0).then(|| agreed as f64 / asked as f64)
    }

    /// The shares of all windows in which it was heard.
    pub(crate) fn shares(&self, now: Timestamp) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        WINDOWS.into_iter().filter_map(move |(name, minutes)| Some((name, self.share(minutes, now)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let agreement = Agreement::default();
        let at = |minute: u64| Timestamp::from_nanos((minute * MINUTE_NS).cast_signed());
        assert_eq!(agreement.shares(at(1_000)).count(), 0);
        (0..4).for_each(|n| agreement.count(n == 0, at(1_000)));
        agreement.count(true, at(1_004));
        assert_eq!(agreement.share(5, at(1_004)), Some(0.4));
        assert_eq!(agreement.share(5, at(1_005)), Some(1.0), "the first minute is out");
        assert_eq!((agreement.share(5, at(1_009)), agreement.share(60, at(1_009))), (None, Some(0.4)));
        agreement.count(false, at(1_060));
        assert_eq!(agreement.share(60, at(1_060)), Some(0.5), "a minute's place is used again");
        assert_eq!(agreement.share(60, at(999)), None, "a clock that was set back sees nothing of later");
    }
}
