//! Video and images from the outside: clips that ffmpeg makes are read, scaled, drawn on and recorded, and ffmpeg and
//! ffprobe judge the result.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod clips;
mod colours;
mod damage;
mod decoding;
mod files;
mod recording;
mod refusals;
mod rows;
