//! The language of the system.
//!
//! Everything that two services must agree on stands here: names, settings, commands, events, the scenario's state,
//! subjects, streams and message bodies, and how one connects. No decision is taken here: that is the orchestrator's.

pub mod catalog;
pub mod geometry;
pub mod id;
pub mod message;
pub mod settings;
pub mod time;
