//! `kadr projection`: looking after the API's tables.

use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use kadr_api::{ApiError, OpenError};
use kadr_shared::nats::Nats;

use crate::{
    args::{ProjectionCommand, ServiceArgs},
    commands::Failure,
    config::Config,
    signals,
    system::Broker,
};

/// How often the bar moves by itself.
const TICK: Duration = Duration::from_millis(100);

pub async fn run(command: ProjectionCommand) -> Result<(), Failure> {
    match command {
        ProjectionCommand::Rebuild(args) => rebuild(&args).await,
    }
}

async fn rebuild(args: &ServiceArgs) -> Result<(), Failure> {
    let config = Config::load(args).map_err(Failure::unusable)?;
    let place = config.database().map_err(Failure::unusable)?;
    let stop = signals::first_signal()?;
    let broker = Broker::start(config.nats.as_deref(), &config.data, config.nats_port).await;
    let broker = broker.context("the log can't be read").map_err(Failure::unusable)?;
    let rebuilt = async {
        let nats = Nats::connect(broker.url(), "kadr-projection").await.map_err(Failure::unusable)?;
        let bar = bar();
        let rebuilt = kadr_api::rebuild(&place, &nats, |progress| {
            bar.set_length(progress.of);
            bar.set_position(progress.seq);
        });
        let rebuilt = tokio::select! {
            rebuilt = rebuilt => rebuilt.map_err(failure),
            () = stop.cancelled() => {
                Err(anyhow!("interrupted: an API that starts now goes on where the tables are").into())
            }
        };
        bar.finish_and_clear();
        rebuilt
    };
    let rebuilt = rebuilt.await;
    broker.stop().await;
    let rebuilt = rebuilt?;
    let seconds = rebuilt.took.as_secs_f64();
    println!(
        "rebuilt {place} from {} events up to sequence {} in {seconds:.2} s ({:.0} events/s)",
        rebuilt.events,
        rebuilt.seq,
        rebuilt.events as f64 / seconds.max(0.001),
    );
    Ok(())
}

/// To standard error, and only if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} events, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// What could not be begun is told apart from what failed on the way.
fn failure(error: ApiError) -> Failure {
    match error {
        ApiError::ReadModel(OpenError::InUse { .. }) => Failure::unusable(error),
        other => anyhow::Error::from(other).into(),
    }
}
