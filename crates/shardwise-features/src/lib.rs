//! The features: one table, one `extract`, and the two kinds of memory that they read — what this router saw itself
//! ([`RouterState`]) and what history taught ([`ServiceTable`]).
//!
//! Offline and online code call the same [`FeatureVector::extract`]; there is no other way to make a feature vector.
//! It leaves out I/O, clocks and randomness: time comes with the context.
//!
//! ```
//! use shardwise_features::{DecisionFeatures, FEATURES, FeatureVector, golden};
//!
//! let golden = golden::contexts().remove(1);
//! let decision = DecisionFeatures::new(&golden.context());
//! let row = FeatureVector::extract(&decision, 0);
//! assert_eq!(row.as_slice().len(), FEATURES.len());
//! ```

pub mod atomic;
mod context;
mod extract;
mod forecast;
pub mod golden;
mod reference;
mod router_state;
mod service_table;
mod slots;
mod table;

pub use context::DecisionContext;
pub use extract::{DecisionFeatures, FEATURE_COUNT, FeatureVector};
pub use forecast::{Answer, Forecast};
pub use golden::fingerprint;
pub use reference::reference_page;
pub use router_state::{BreakerState, ImageError, RouterConfig, RouterImage, RouterState, ShardLocal, Ticket};
pub use service_table::{COMPLEXITY_EXPONENT_PRIOR, RequestService, ServiceObservations, ServiceTable, ShardService};
pub use table::{FEATURES, Feature, FeatureGroup, SPECIFICATION_FEATURES, position};
