//! Runners on a real nats-server. The test is their orchestrator and their inference: it decides and answers by hand, so that
//! it can be late, wrong or silent whenever it wants.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod cameras;
mod erase;
mod files;
mod frames;
mod images;
mod outputs;
mod preprocess;
mod receiver;
mod resume;
mod starts;
mod world;
