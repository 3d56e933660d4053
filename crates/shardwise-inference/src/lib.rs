//! The decision that a router embeds: [`Placer::predict_optimal_shard`].
//!
//! It scores every eligible shard with one additive cost and takes the cheapest. The model supplies the execution time;
//! when it is missing or wrong the service table does, then what the router measured itself, then the least loaded
//! shard is taken. Every answer says who decided and why. It does no I/O and never panics on what it is given.
//!
//! ```
//! use shardwise_features::golden;
//! use shardwise_inference::Placer;
//!
//! let golden = golden::contexts().remove(1);
//! let placer = Placer::without_model();
//! let prediction = placer.predict_optimal_shard(&golden.context())?;
//! println!("{} because {}", prediction.recommended_shard, prediction.reasoning()[0]);
//! # Ok::<(), shardwise_types::NoEligibleShard>(())
//! ```

mod confidence;
mod config;
mod counts;
mod decision_log;
mod gate;
mod guards;
mod model_slot;
mod placer;
mod ranking;
mod revisit;
mod shadow;
mod spread;
mod timing;
mod watcher;

pub use config::{Admission, Budget, Cap, Exploration, Guards, PlacerConfig};
pub use counts::DecisionCounts;
pub use decision_log::{DecisionLog, LogConfig, LoggedDecision, LoggedOutcome};
pub use gate::Trust;
pub use model_slot::ModelSlot;
pub use placer::{Placement, Placer};
pub use revisit::{Revisited, Weighed};
pub use shadow::{Shadow, ShadowConfig};
pub use watcher::{BundleSource, SourceError, TrustedSource, WatchConfig, WatchEvent, Watcher};
