//! What is asked, what is reported, what happened, and the state that follows from it.
//!
//! Pure: no clock, no randomness, no network. What is *decided* stands in the orchestrator.

mod command;
mod event;
mod fact;
mod state;
mod upcast;

pub use command::{Command, CommandEnvelope, CommandKind};
pub use event::{Cause, Event, EventBody, EventData, EventError, Refusal};
pub use fact::{Fact, FactEnvelope, InterruptionKind};
pub use state::{Assignment, EndReason, Ended, Health, HealthStatus, Phase, Run, Shutdown, State, Wait};
