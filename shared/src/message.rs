//! What goes over the wire besides commands and the log: frames, their raw results, stored detections, live video.

pub mod detection;
pub mod frame;
pub mod image;
pub mod recording;
pub mod video;
pub mod worker;
