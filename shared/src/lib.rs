//! The language of the system.
//!
//! Everything that two services must agree on stands here, and how one connects. No decision is taken here: that is
//! the orchestrator's.
//!
//! | module | |
//! |---|---|
//! | [`id`], [`time`], [`moment`], [`geometry`] | names, times, places in the past, sizes: parsed once, at the edge |
//! | [`settings`], [`catalog`] | what a scenario is told to do; which models there are |
//! | [`domain`] | commands, facts, events, and the state that follows from them (pure) |
//! | [`message`] | frames, raw results, stored detections, live video |
//! | [`filter`], [`csv`] | some of the stored detections; as a table |
//! | [`mp4`] | how MP4 tells that pictures are H.264 |
//! | [`subjects`], [`streams`] | where everything lies on JetStream |
//! | [`nats`], [`server`] | a connection; a server of one's own |
//! | [`secret`] | cameras' passwords and what webhooks are signed with, encrypted |
//! | [`publish`], [`tail`] | storing one message; reading a stream in order |
//! | [`log`], [`inbox`], [`detections`], [`nodes`] | the log, the way into it, what is stored of frames, signs of life |
//! | `onvif` (a feature) | cameras that tell what they are and where their streams are |
//! | [`telemetry`] | logging |

pub mod catalog;
pub mod csv;
pub mod detections;
pub mod domain;
pub mod filter;
pub mod geometry;
pub mod id;
pub mod inbox;
pub mod log;
pub mod message;
pub mod moment;
pub mod mp4;
pub mod nats;
pub mod nodes;
#[cfg(feature = "onvif")]
pub mod onvif;
pub mod publish;
pub mod secret;
pub mod server;
pub mod settings;
pub mod streams;
pub mod subjects;
pub mod tail;
pub mod telemetry;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
