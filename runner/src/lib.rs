//! Reads video, has its frames analysed, stores results in order, draws them.

pub mod picture;
pub mod scale;
pub mod source;
