//! One attempt to run a scenario, from its start in the log to its release.
//!
//! The log is what it obeys: it runs when the log names it, and lets go when the log says so. What it reports back are
//! facts; nothing here decides.

use std::{path::PathBuf, sync::Arc};

use async_nats::jetstream::{self, AckKind};
use kadr_shared::{
    domain::{Event, EventData, Fact},
    id::{RunId, ScenarioId},
    log,
    nats::Nats,
    settings::Settings,
    tail::{Feed, Tail},
    telemetry::chain,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    board::Board,
    facts::Reporter,
    pipeline::{self, Job, Limits, Outcome, Report, Stops},
};

/// Reports that wait to become facts.
const REPORTS: usize = 16;
/// Events of one scenario read ahead.
const READ_AHEAD: usize = 16;

/// What attempts share.
pub(crate) struct Shared {
    /// For the log, facts and results' storage.
    pub(crate) control: Nats,
    /// For frames and raw results, so that they never keep control waiting.
    pub(crate) frames: Nats,
    pub(crate) board: Arc<Board>,
    pub(crate) recordings: PathBuf,
    pub(crate) limits: Limits,
    /// The runner is to stop, or its lease is lost.
    pub(crate) stop: CancellationToken,
    /// The lease is lost: what it would report is void.
    pub(crate) lease: CancellationToken,
}

/// A start of the log that this runner has taken on itself to try.
pub(crate) struct Start {
    pub(crate) scenario: ScenarioId,
    pub(crate) seq: u64,
    pub(crate) run: RunId,
    pub(crate) settings: Settings,
}

/// What an event means for the attempt.
enum Meaning {
    /// This runner has it, under this fence.
    Mine(u64),
    /// The scenario is to be shut down.
    Shutdown,
    /// It is somebody else's business now, or nobody's.
    Over,
    Nothing,
}

/// Runs the attempt to its end. `message` is the start as the shared consumer gave it; it is acknowledged when the
/// claim is stored, or when there is nothing to claim.
pub(crate) async fn run(shared: &Shared, start: Start, message: jetstream::Message) {
    let seq = start.seq;
    // Offered again because its acknowledgement is late or was lost: the first attempt will see to it.
    if shared.board.begin(seq) {
        attempt(shared, start, message).await;
        shared.board.end(seq);
    }
}

async fn attempt(shared: &Shared, start: Start, message: jetstream::Message) {
    let reporter = Reporter {
        nats: shared.control.clone(),
        scenario: start.scenario.clone(),
        run: start.run,
        runner: shared.board.runner().clone(),
    };
    let mut follow = log::tail_of(&shared.control, &start.scenario, start.seq + 1);
    let superseded = tokio::select! {
        () = shared.stop.cancelled() => return,
        superseded = is_superseded(shared, &start, &mut follow) => superseded,
    };
    if !superseded {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = reporter.report(Fact::Claimed { start: start.seq }) => {}
        }
    }
    if let Err(error) = message.ack_with(AckKind::Ack).await {
        warn!(scenario = %start.scenario, %error, "can't acknowledge a start: another runner may be offered it");
    }
    if superseded {
        return;
    }
    // The claim is answered by an event behind the start: read from there, the part seen above included.
    let follow = log::tail_of(&shared.control, &start.scenario, start.seq + 1).spawn(READ_AHEAD);
    let mut attempt = Attempt { shared, start, reporter, follow };
    attempt.wait_and_run().await;
}

/// Whether the log already tells of something that makes this start void. Reads what is there, waits for nothing.
async fn is_superseded(shared: &Shared, start: &Start, follow: &mut Tail) -> bool {
    let stream = match shared.control.jetstream.get_stream(kadr_shared::subjects::EVENTS).await {
        Ok(stream) => stream,
        // Unknown: the claim itself is refused if it is void.
        Err(_) => return false,
    };
    let filter = kadr_shared::subjects::events_of(&start.scenario);
    let last = stream.get_last_raw_message_by_subject(&filter).await.map_or(0, |m| m.sequence);
    let mut seen = start.seq;
    while seen < last {
        let entry = follow.next().await;
        seen = entry.seq;
        if let Some((event, data)) = parse(&entry)
            && matches!(meaning(shared, &event, &data), Meaning::Shutdown | Meaning::Over | Meaning::Mine(_))
        {
            return true;
        }
    }
    false
}

struct Attempt<'a> {
    shared: &'a Shared,
    start: Start,
    reporter: Reporter,
    follow: Feed,
}

impl Attempt<'_> {
    async fn wait_and_run(&mut self) {
        let stop = self.shared.stop.clone();
        let fence = tokio::select! {
            () = stop.cancelled() => return,
            fence = self.assignment() => fence,
        };
        if let Some(fence) = fence {
            info!(scenario = %self.start.scenario, run = %self.start.run, fence, "running");
            self.run(fence).await;
            info!(scenario = %self.start.scenario, run = %self.start.run, fence, "let go");
        }
    }

    /// The fence, once the log names this runner; none if it names another or the start is void.
    async fn assignment(&mut self) -> Option<u64> {
        loop {
            match self.next_meaning().await {
                Meaning::Mine(fence) => return Some(fence),
                Meaning::Shutdown | Meaning::Over => return None,
                Meaning::Nothing => {}
            }
        }
    }

    async fn next_meaning(&mut self) -> Meaning {
        let entry = self.follow.next().await;
        match parse(&entry) {
            Some((event, data)) => meaning(self.shared, &event, &data),
            None => Meaning::Nothing,
        }
    }

    async fn run(&mut self, fence: u64) {
        let meter = self.shared.board.open(&self.start.scenario, self.start.run, fence);
        let video =
            self.start.settings.outputs.video.then(|| {
                self.shared.recordings.join(self.start.scenario.as_str()).join(format!("{}.mp4", self.start.run))
            });
        let job = Job {
            scenario: self.start.scenario.clone(),
            run: self.start.run,
            fence,
            settings: self.start.settings.clone(),
            video,
            limits: self.shared.limits,
        };
        let stops = Stops::default();
        let (sender, reports) = mpsc::channel(REPORTS);
        let nats = self.shared.frames.clone();
        // In a task of its own: reporting a fact may wait for the server while frames go on.
        let mut pipeline = tokio::spawn(pipeline::run(job, nats, meter.clone(), sender, stops.clone()));
        let mut telling = tokio::spawn(tell(self.reporter.clone(), fence, reports));

        let mut ended = false;
        let mut shutdown = false;
        let mut over = false;
        while !(shutdown || over || self.shared.stop.is_cancelled()) {
            tokio::select! {
                () = self.shared.stop.cancelled() => {}
                outcome = &mut pipeline, if !ended => {
                    ended = true;
                    let outcome = outcome.unwrap_or_else(|error| {
                        Outcome::Failed { error: format!("the pipeline broke: {error}"), retry: true }
                    });
                    over = matches!(outcome, Outcome::Fenced);
                    self.report_end(fence, &outcome, &mut telling).await;
                }
                meaning = self.next_meaning() => match meaning {
                    Meaning::Shutdown => shutdown = true,
                    Meaning::Over => over = true,
                    // Its own assignment, read again.
                    Meaning::Mine(_) | Meaning::Nothing => {}
                }
            }
        }
        if shutdown {
            stops.close.cancel();
        } else {
            stops.abandon.cancel();
        }
        let goodbye = async {
            if shutdown {
                self.reporter.report(Fact::Stopping { fence }).await;
            }
            if !ended && let Err(error) = pipeline.await {
                warn!(scenario = %self.start.scenario, %error, "the pipeline broke");
            }
            telling.abort();
            if shutdown {
                self.reporter.report(Fact::Released { fence, frames: meter.frames() }).await;
            } else if !over {
                // The runner stops: the scenario goes to another one at once, not after a silence.
                self.reporter.report(Fact::Left { fence }).await;
            }
        };
        // Without its lease the runner has nothing more to say; its silence is an answer, too.
        tokio::select! {
            () = self.shared.lease.cancelled() => {}
            () = goodbye => {}
        }
        self.shared.board.close(&meter);
    }

    /// Tells how the pipeline ended. The log then says what follows from it.
    async fn report_end(&self, fence: u64, outcome: &Outcome, telling: &mut JoinHandle<()>) {
        let fact = match outcome {
            Outcome::Ended { frames, of, error } => {
                Fact::Ended { fence, frames: *frames, of: *of, error: error.clone() }
            }
            Outcome::Failed { error, retry } => Fact::Failed { fence, error: error.clone(), retry: *retry },
            Outcome::Cancelled | Outcome::Fenced => return,
        };
        let report = async {
            // What the pipeline told before its end comes first.
            if let Err(error) = telling.await {
                warn!(scenario = %self.start.scenario, %error, "reporting broke");
            }
            self.reporter.report(fact).await;
        };
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            () = report => {}
        }
    }
}

/// Turns reports into facts, in order.
async fn tell(reporter: Reporter, fence: u64, mut reports: mpsc::Receiver<Report>) {
    let (mut interruptions, mut resumptions) = (0, 0);
    while let Some(report) = reports.recv().await {
        match report {
            Report::Streaming => reporter.report(Fact::Streaming { fence }).await,
            Report::Interrupted { kind, error } => {
                interruptions += 1;
                reporter.report_counted(interruptions, Fact::Interrupted { fence, kind, error }).await;
            }
            Report::Resumed => {
                resumptions += 1;
                reporter.report_counted(resumptions, Fact::Resumed { fence }).await;
            }
        }
    }
}

fn parse(entry: &kadr_shared::tail::Entry) -> Option<(Event, EventData)> {
    let parsed = log::read(entry).map_err(|e| chain(&e)).and_then(|event| match event.parse() {
        Ok(data) => Ok((event, data)),
        Err(e) => Err(chain(&e)),
    });
    parsed.inspect_err(|error| warn!(seq = entry.seq, error, "an event can't be understood")).ok()
}

fn meaning(shared: &Shared, event: &Event, data: &EventData) -> Meaning {
    match data {
        EventData::RunnerAssigned { runner, .. } if runner == shared.board.runner() => Meaning::Mine(event.seq),
        EventData::RunnerAssigned { .. }
        | EventData::StartRequested { .. }
        | EventData::AttemptFailed { .. }
        | EventData::RunnerLeft { .. }
        | EventData::Deactivated { .. }
        | EventData::ScenarioDeleted {}
        | EventData::ScenarioCreated { .. } => Meaning::Over,
        EventData::StopRequested { .. } | EventData::SourceEnded { .. } | EventData::RunFailed { .. } => {
            Meaning::Shutdown
        }
        EventData::ScenarioReconfigured { .. }
        | EventData::CommandRefused { .. }
        | EventData::Activated { .. }
        | EventData::SourceInterrupted { .. }
        | EventData::SourceResumed { .. }
        | EventData::ShutdownAcknowledged { .. } => Meaning::Nothing,
    }
}
