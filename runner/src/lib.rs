//! Reads video, has its frames analysed, stores results in order, draws them.
//!
//! In the order of a frame's way:
//!
//! | module | |
//! |---|---|
//! | [`source`], [`picture`] | files, images and cameras, decoded into planes |
//! | `preprocess`, [`scale`] | which frames, and which part of them, as letterboxed planes for the model |
//! | `pipeline` | sending with credit, collecting, ordering, storing |
//! | [`overlay`], [`record`] | results drawn on the full frame, written as MP4 |
//! | `live` | the same, coded for whoever looks on |
//! | `archive` | a camera's recording, annotated or as it came |
//!
//! And around it: `service` competes for starts (`starts`, evened out by `peers`), `attempt` obeys the log (`follow`),
//! `facts` reports, `board` shows signs of life as long as the `lease` holds, with each scenario's numbers (`meter`), `workers`
//! listens for inference, `outputs` writes stored results into files and tells webhooks of them, `erase` takes away what
//! deleted scenarios have recorded.
//!
//! No model is ever loaded here, and nothing is decided: a runner claims, reports and lets go.

mod archive;
mod attempt;
mod board;
mod erase;
mod facts;
mod follow;
mod lease;
mod live;
mod meter;
mod outputs;
pub mod overlay;
mod patience;
mod peers;
pub mod picture;
mod pipeline;
mod preprocess;
pub mod record;
pub mod scale;
mod service;
pub mod source;
mod starts;
mod workers;

pub use pipeline::Limits;
pub use service::{Config, RunnerError, run};
