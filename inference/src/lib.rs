//! From frames to detections: models, and the workers that serve them.
//!
//! In the order in which a frame goes through it:
//!
//! - [`worker`] pulls frames from NATS, shares them out among threads, publishes the results; the only part that knows a
//!   network;
//! - [`preprocess`] makes planes the network's input;
//! - [`model`] is YOLOv8 on candle, from pixels to candidates;
//! - [`nms`] picks the objects among the candidates;
//! - [`detector`] is these three behind one narrow type, in the source's pixels;
//! - [`weights`] finds, verifies, fetches and reads the files that models are loaded from.

pub mod detector;
pub mod device;
pub mod fast;
mod gpu;
pub mod model;
pub mod nms;
pub mod preprocess;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod testkit;
pub mod weights;
pub mod worker;

pub use detector::Detector;
pub use weights::Store;
pub use worker::{Config, run};
