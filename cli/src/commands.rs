//! One command a file; here is which is which, and how a failure becomes an exit code.

mod analyze;
mod discover;
pub mod events;
mod models;
mod projection;
mod scenario;
mod up;

use anyhow::{Error, anyhow};
use kadr_shared::nats::NatsError;

use crate::{
    args::{Cli, Command},
    config::Config,
    signals,
    system::{self, Single},
};

/// What was asked for was not done.
pub const FAILED: u8 = 1;
/// It could not be begun: bad arguments, a missing file, missing weights.
pub const UNUSABLE: u8 = 2;

/// How the process ends when it does not end well.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// None: all has been said.
    pub error: Option<Error>,
}

impl Failure {
    pub fn unusable(error: impl Into<Error>) -> Self {
        Self { code: UNUSABLE, error: Some(error.into()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: FAILED, error: Some(error) }
    }
}

pub async fn run(cli: Cli) -> Result<(), Failure> {
    let single = |single, args| async move {
        let config = Config::load(&args).map_err(Failure::unusable)?;
        let stop = signals::first_signal()?;
        let Some(url) = config.nats.as_deref() else {
            let error = anyhow!("name the NATS server by --nats URL or KADR_NATS: a service by itself starts none");
            return Err(Failure::unusable(error));
        };
        // Before it is connected it has not begun.
        system::run_single(single, &config, url, stop).await.map_err(|error| match error.is::<NatsError>() {
            true => Failure::unusable(error),
            false => error.into(),
        })
    };
    match cli.command {
        Command::Up(args) => up::run(&args).await,
        Command::Analyze(args) => analyze::run(args).await,
        Command::Api(args) => single(Single::Api, args).await,
        Command::Orchestrator(args) => single(Single::Orchestrator, args).await,
        Command::Runner(args) => single(Single::Runner, args).await,
        Command::Inference(args) => single(Single::Inference, args).await,
        Command::Discover(args) => Ok(discover::run(args).await?),
        Command::Scenario(command) => Ok(scenario::run(command).await?),
        Command::Events(command) => Ok(events::run(command).await?),
        Command::Models(command) => models::run(command).await,
        Command::Projection(command) => projection::run(command).await,
    }
}
