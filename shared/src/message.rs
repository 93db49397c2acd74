//! What goes over the wire besides commands and the log: frames, their raw results, stored detections.

pub mod detection;
pub mod frame;
pub mod worker;
