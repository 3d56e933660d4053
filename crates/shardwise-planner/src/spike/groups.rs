//! Groups of functions, by words in their names.

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, Protocol};

/// Groups of functions that the market moves, each in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadGroup {
    /// Differences between markets.
    Arbitrage,
    /// Lending and yields.
    Yield,
    /// Risk and liquidations.
    Risk,
    /// Orders and swaps.
    Trading,
}

/// One value for each group.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByGroup<T> {
    /// Of arbitrage.
    pub arbitrage: T,
    /// Of yields.
    #[serde(rename = "yield")]
    pub yields: T,
    /// Of risk.
    pub risk: T,
    /// Of trading.
    pub trading: T,
}

impl<T> ByGroup<T> {
    /// Makes the value of each group.
    pub fn of(mut value: impl FnMut(LoadGroup) -> T) -> Self {
        Self {
            arbitrage: value(LoadGroup::Arbitrage),
            yields: value(LoadGroup::Yield),
            risk: value(LoadGroup::Risk),
            trading: value(LoadGroup::Trading),
        }
    }

    /// The value of a group.
    pub fn get(&self, group: LoadGroup) -> &T {
        match group {
            LoadGroup::Arbitrage => &self.arbitrage,
            LoadGroup::Yield => &self.yields,
            LoadGroup::Risk => &self.risk,
            LoadGroup::Trading => &self.trading,
        }
    }
}

impl LoadGroup {
    /// All groups.
    pub const ALL: [Self; 4] = [Self::Arbitrage, Self::Yield, Self::Risk, Self::Trading];

    /// Its name, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arbitrage => "arbitrage",
            Self::Yield => "yield",
            Self::Risk => "risk",
            Self::Trading => "trading",
        }
    }

    /// The first group, in the order of [`Self::ALL`], of which a word stands in the name of the function or its protocol.
    pub fn of(function: &FunctionId, protocol: &Protocol, words: &ByGroup<Vec<String>>) -> Option<Self> {
        let names = [function.as_str().to_lowercase(), protocol.as_str().to_lowercase()];
        let has =
            |group: &Self| words.get(*group).iter().any(|word| names.iter().any(|name| name.contains(word.as_str())));
        Self::ALL.into_iter().find(has)
    }
}
