//! What came back: the response that a shard gives, with the times that it measured itself.

use serde::{Deserialize, Serialize};

use crate::InvalidInput;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The function or the shard failed.
    Failed,
    /// No answer within the timeout.
    Timeout,
    /// The shard dropped it: its deadline had passed in the queue.
    Dropped,
    /// The router called it off, because a copy of it was answered first. It says nothing about the shard.
    Cancelled,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Failed, Self::Timeout, Self::Dropped, Self::Cancelled];

    /// The class as it is written in the history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Dropped => "dropped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads a class.
    ///
    /// # Errors
    /// Anything but the listed words is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        Self::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            InvalidInput::new("error_class", format!("'{text}' is not one of {all}"))
        })
    }
}

/// A response as the router sees it. The split into execution and queue, measured by the shard, is what makes
/// execution time learnable apart from the load of the day.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Why it failed; `None` when it succeeded.
    pub error: Option<ErrorClass>,
    /// From dispatch to response at the router, in ms.
    pub total_ms: f32,
    /// On a core, loading included, in ms; 0 when it never ran.
    pub exec_ms: f32,
    /// In the shard's queue, in ms.
    pub queue_ms: f32,
    /// Requests queued and running on the shard when it answered.
    pub queue_len: u32,
    /// Whether the function had to be loaded first.
    pub cold: bool,
}

impl Response {
    /// Whether the request succeeded.
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}
