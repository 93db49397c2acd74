//! Decides on commands and facts, and writes the log.
//!
//! | module | |
//! |---|---|
//! | [`decide`] | the state machine's rules (pure) |
//! | `book` | every scenario's state, folded from the log |
//! | `timers` | what time alone brings: pauses that end, shutdowns that nobody answers |
//! | `runners` | which runners show signs of life |
//! | `claims` | starts that were lost on their way to a runner |
//! | `leadership` | the leader's key |
//! | `desk` | inputs on their way to becoming events: in order for a scenario, many scenarios at once |
//! | `service` | the loop that brings them together |
//!
//! Frames, detections and media never come here; neither does anything that a read model could answer.

mod book;
mod claims;
pub mod decide;
mod desk;
mod leadership;
mod runners;
mod service;
mod timers;

pub use service::{Config, OrchestratorError, run};
