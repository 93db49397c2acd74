//! The one binary: services, the whole system on one machine, and commands for people. Thin: it parses, wires, prints.

#![allow(unreachable_pub, reason = "a binary has no outside: `pub` says what a module offers to the others")]

mod args;
mod client;
mod clock;
mod commands;
mod config;
mod print;
mod secret_key;
mod signals;
mod system;

use std::process::ExitCode;

use clap::Parser;
use kadr_shared::telemetry;

use crate::{args::Cli, commands::Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::init(cli.command.default_log());
    clock::follow_offset();
    // Two TLS providers may be linked in; without a choice the first connection would panic. A second choice is refused,
    // and there is none before this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kadr: can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, error }) => {
            if let Some(error) = error {
                eprintln!("kadr: {error:#}");
            }
            ExitCode::from(code)
        }
    };
    // A thread that decodes or computes may be in the middle of a frame: nothing waits for it any more.
    runtime.shutdown_background();
    code
}
