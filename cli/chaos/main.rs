//! `make chaos`: breaks things on purpose, at random from a seed, and then checks from the streams alone that kadr has
//! kept its word. `docs/reliability.md` says what is promised, done and checked.
//!
//! It talks to processes, REST and NATS only. `plan` is made from the seed; `world`, `cluster`, `proxy` and `process` are
//! what runs; `killer`, `load` and `ghost` carry the plan out; `watch` and `probe` look on; `streams` and `checks` judge; `report` tells.

#![allow(unreachable_pub, reason = "a binary has no outside: `pub` says what a module offers to the others")]

mod checks;
mod cluster;
mod ghost;
mod killer;
mod load;
mod plan;
mod probe;
mod process;
mod proxy;
mod report;
mod rest;
mod run;
mod settle;
mod sources;
mod spans;
mod streams;
mod watch;
mod world;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Breaks a running kadr on purpose, and checks that it keeps its word.
#[derive(Debug, Clone, Parser)]
pub struct Args {
    /// The kadr to break
    #[arg(long, default_value = "target/debug/kadr")]
    kadr: PathBuf,
    /// What is done follows from it; by default one is made up and told
    #[arg(long)]
    seed: Option<u64>,
    /// How many times a process is killed or suspended
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// NATS nodes
    #[arg(long, default_value_t = 3, value_parser = clap::builder::PossibleValuesParser::new(["1", "3"]).map(|n| if n == "1" { 1_usize } else { 3 }))]
    nodes: usize,
    /// The least time that commands go on, also with few kills
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Scenarios that only change state, beside those of a clip
    #[arg(long, default_value_t = 200)]
    states: usize,
    /// Break nothing but this: kill, freeze, cut, stall, delay, fill_disk, jump, or such of one kind (kill-orchestrator)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Tell how long stops and recoveries took, but do not judge by it: for a machine that others use, too
    #[arg(long)]
    tell_times: bool,
    /// Where a folder with everything that is left of the run is made
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
    /// Print the plan and do nothing
    #[arg(long)]
    plan: bool,
}

use clap::builder::TypedValueParser;

/// Milliseconds since 1970, by this machine's clock (which the servers share).
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        tokio::select! {
            result = run::run(args) => match result {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("chaos: {error:#}");
                    ExitCode::from(2)
                }
            },
            () = interrupted() => {
                eprintln!("chaos: interrupted");
                ExitCode::from(130)
            }
        }
    });
    // Whatever is left ends here, by its owners; what they forget, the keeper ends.
    drop(runtime);
    code
}

async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
