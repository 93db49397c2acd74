//! The network on a CPU, fast: pure Rust, no library of kernels behind it.
//!
//! In the order in which a picture meets them:
//!
//! - `network` has the parameters, packed once for all workers of a process (`pack`, `element`, `scales`);
//! - `plan` makes the network's graph a list of works on maps (`layout`) in few buffers (`memory`);
//! - `conv` makes a work ready: tiles, tasks, numbers;
//! - `executor` is one worker's pass through them, `run` its steps as tasks for `threads`;
//! - `kernels` are the innermost loops, for each kind of CPU;
//! - `head` makes candidates of what comes out;
//! - `engine` is all of it for any precision, `calibration` what bytes stand for.
//!
//! `inference/ARCHITECTURE.md` tells why it is as it is. Thresholds, classes and suppression are not decided here. Code that
//! the compiler can't check is only in `kernels`, `run`, `threads` and `memory`.

mod calibration;
mod conv;
mod element;
mod engine;
mod executor;
mod head;
mod kernels;
mod layout;
mod memory;
mod network;
mod pack;
mod pair;
mod picture;
mod plan;
mod run;
mod scales;
mod threads;

pub use self::{
    calibration::{Calibration, CalibrationError, Calibrator},
    element::{Precision, UnknownPrecision},
    engine::{Engine, EngineError, Executor, Mode},
    executor::Timed,
    kernels::Cpu,
};
