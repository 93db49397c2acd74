//! The whole system as its users meet it: the built binary, its processes, files, HTTP and a real nats-server.
//!
//! One binary for all of it: it is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod analyze;
mod bad_input;
mod cameras;
mod cluster;
mod commands;
mod discover;
mod example;
mod failover;
mod faults;
mod images;
mod leadership;
mod live;
mod models;
mod outage;
mod outputs;
mod projection;
mod rtsp;
mod support;
mod time_travel;
mod up;
