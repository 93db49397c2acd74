//! Watching a run until it has ended: the log says when, the API how far it is.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kadr_shared::{
    domain::EventData,
    id::{CommandId, ScenarioId},
    log,
    nats::Nats,
};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Scenario};

/// How often the progress is asked for.
const LOOK: Duration = Duration::from_millis(250);
/// Without a terminal a line of progress now and then is enough.
const LINE: Duration = Duration::from_secs(5);
/// From the stop to the end of the run.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the API's tables have an event that the log has.
const PROJECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How a run ended.
pub struct End {
    pub frames: u64,
    pub of: Option<u64>,
    pub reason: String,
    pub error: Option<String>,
    /// From the runner's assignment to the last event.
    pub took: Duration,
}

impl End {
    /// What was not done; none: every frame was analysed.
    pub fn shortfall(&self) -> Option<String> {
        let of = self.of.map_or_else(String::new, |of| format!(" of {of}"));
        let told = format!("{}{of} frames were analysed", self.frames);
        match (&self.error, self.reason.as_str()) {
            (Some(error), _) => Some(format!("{error} ({told})")),
            (None, "completed") if self.of.is_none_or(|of| of == self.frames) => None,
            (None, "completed") => Some(told),
            (None, reason) => Some(format!("the run was {reason}: {told}")),
        }
    }
}

pub async fn until_ended(client: &Client, nats: &Nats, id: &ScenarioId, stop: &CancellationToken) -> Result<End> {
    let mut log = log::tail_of(nats, id, 1).spawn(64);
    let mut display = Display::new()?;
    let mut look = tokio::time::interval(LOOK);
    let mut began = Instant::now();
    let mut deadline = None;
    loop {
        let timed_out = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            entry = log.next() => match log::read(&entry)?.parse()? {
                EventData::RunnerAssigned { .. } => began = Instant::now(),
                EventData::AttemptFailed { error, .. } => display.say(&format!("trying again: {error}")),
                EventData::SourceInterrupted { error, .. } => display.say(&error),
                EventData::Deactivated { .. } => {
                    let took = began.elapsed();
                    let scenario = as_of(client, id, "inactive").await?;
                    display.finish(&scenario);
                    let ended = scenario.ended.context("the API does not say how the run ended")?;
                    return Ok(End {
                        frames: scenario.progress.frame,
                        of: scenario.progress.of,
                        reason: ended.reason,
                        error: ended.error,
                        took,
                    });
                }
                _ => {}
            },
            // Only for show: what matters comes from the log.
            _ = look.tick() => if let Ok(scenario) = client.scenario(id).await {
                display.show(&scenario);
            },
            () = stop.cancelled(), if deadline.is_none() => {
                display.say("stopping");
                // Refused if it has ended meanwhile: the log tells.
                if let Err(error) = client.command(id, "stop", &CommandId::generate()).await {
                    display.say(&format!("{error:#}"));
                }
                deadline = Some(tokio::time::Instant::now() + STOP_TIMEOUT);
            }
            () = timed_out => bail!("the run did not stop within {} s", STOP_TIMEOUT.as_secs()),
        }
    }
}

/// The scenario once the API shows this state.
async fn as_of(client: &Client, id: &ScenarioId, state: &str) -> Result<Scenario> {
    let asked = async {
        loop {
            let scenario = client.scenario(id).await?;
            if scenario.state == state {
                return Ok(scenario);
            }
            tokio::time::sleep(LOOK / 10).await;
        }
    };
    tokio::time::timeout(PROJECTION_TIMEOUT, asked)
        .await
        .with_context(|| format!("the API did not show the scenario as {state} in time"))?
}

/// A bar on a terminal, a line now and then elsewhere.
struct Display {
    bar: ProgressBar,
    terminal: bool,
    line_at: Instant,
}

impl Display {
    fn new() -> Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{spinner} starting")?);
        Ok(Self { bar, terminal, line_at: Instant::now() })
    }

    fn show(&mut self, scenario: &Scenario) {
        let (frame, of) = (scenario.progress.frame, scenario.progress.of);
        let fps = scenario.health.analysed_fps.map_or_else(String::new, |fps| format!("{fps:.1} fps"));
        if self.terminal {
            let template = match of {
                Some(_) => "{wide_bar} {pos}/{len} frames  {msg}  {eta} left",
                None => "{spinner} {pos} frames  {msg}",
            };
            if frame > 0
                && let Ok(style) = ProgressStyle::with_template(template)
            {
                self.bar.set_style(style);
            }
            if let Some(of) = of {
                self.bar.set_length(of);
            }
            self.bar.set_position(frame);
            self.bar.set_message(fps);
            self.bar.tick();
        } else if frame > 0 && self.line_at.elapsed() >= LINE {
            self.line_at = Instant::now();
            let of = of.map_or_else(String::new, |of| format!(" of {of}"));
            eprintln!("{frame}{of} frames  {fps}");
        }
    }

    fn say(&self, text: &str) {
        if self.terminal { self.bar.println(text) } else { eprintln!("{text}") }
    }

    fn finish(&self, scenario: &Scenario) {
        self.bar.set_position(scenario.progress.frame);
        self.bar.finish_and_clear();
    }
}
