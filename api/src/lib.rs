//! The way in for users and programs: REST with OpenAPI, over a read model of the log.
//!
//! Decides nothing. A request to change something is put into the inbox and its outcome is read from the log; every
//! other answer comes from tables that follow the log and can be rebuilt from it at any time.
//!
//! | module | |
//! |---|---|
//! | [`service`](Api) | binds, starts the parts, ends them in order |
//! | `http` | routes, parameters, middleware: HTTP and nothing else |
//! | `body` | what answers look like: scenarios, settings, events, as JSON and as OpenAPI schemas |
//! | `problem` | every way a request can fail, with its stable name |
//! | `commands` | into the inbox, and waiting for what becomes of it |
//! | `detections` | what is stored of a scenario's frames: in pages, and as it comes |
//! | `storage` | what JetStream says of the streams, and what it refused to store |
//! | `freshness` | waiting until the tables have come to a sequence |
//! | `time_travel` | the past: a scenario as it was, its transitions |
//! | `projection` | follows the log into the read model |
//! | `read_model` | the tables, in SQLite or PostgreSQL: opening, reading, writing |
//! | `place` | where the tables are, as a user writes it |
//! | `live` | the runners' numbers of this moment, in memory only |
//! | `recordings` | what was recorded, as clips |
//! | `video` | live video, read once for all viewers and packed for players |
//! | `rtsp` | the same for players that speak RTSP |

mod body;
mod commands;
mod detections;
mod error;
mod freshness;
mod http;
mod live;
mod place;
mod problem;
mod projection;
mod read_model;
mod recordings;
mod rtsp;
mod service;
mod storage;
mod time_travel;
mod video;

pub use error::ApiError;
pub use place::{Place, PlaceError};
pub use problem::ProblemName;
pub use projection::{Progress, ProjectionError, Rebuilt, rebuild};
pub use read_model::OpenError;
#[doc(hidden)]
pub use rtsp::messages_in;
pub use service::{Api, Config};
