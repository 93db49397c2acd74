//! Video and images from the outside: clips that ffmpeg makes are read, scaled, drawn on and recorded, and ffmpeg and
//! ffprobe judge the result.

mod clips;
mod colours;
mod damage;
mod decoding;
mod refusals;
