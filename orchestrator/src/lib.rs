//! Decides on commands and facts, and writes the log.
//!
//! | module | |
//! |---|---|
//! | [`decide`] | the state machine's rules (pure) |
//! | `book` | every scenario's state, folded from the log |
//! | `runners` | which runners show signs of life |
//! | `leadership` | the leader's key |
//! | `service` | the loop that brings them together |
//!
//! Frames, detections and media never come here; neither does anything that a read model could answer.

mod book;
pub mod decide;
mod leadership;
mod runners;
mod service;

pub use service::{Config, OrchestratorError, run};
