//! One attempt to run a scenario, from its start in the log to its release.
//!
//! The log is what it obeys: it runs when the log names it, and lets go when the log says so. What it reports back are
//! facts; nothing here decides.

use std::{
    future::Future,
    path::PathBuf,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kadr_shared::{
    domain::{Event, EventData, Fact},
    log,
    nats::Nats,
    secret::SecretKey,
    tail::Entry,
    telemetry::chain,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    board::Board,
    facts::Reporter,
    follow::{Follow, Follower},
    lease::Lease,
    meter::Meter,
    outputs::{Hooks, Outputs},
    pipeline::{self, Job, Limits, Outcome, Report, Stops},
    starts::{self, Offer, Start},
    workers::Workers,
};

/// Reports that wait to become facts.
const REPORTS: usize = 16;
/// A pipeline that is given up may take this long for what it is at.
const LET_GO: Duration = Duration::from_secs(2);
/// A runner that stops waits this long for the answer to a claim.
const VERDICT: Duration = Duration::from_secs(2);

/// What attempts share.
pub(crate) struct Shared {
    /// For the log, facts and signs of life.
    pub(crate) control: Nats,
    /// For frames and results, so that they never keep control waiting.
    pub(crate) frames: Nats,
    pub(crate) board: Arc<Board>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) log: Arc<Follower>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) recordings: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) secret_key: Option<SecretKey>,
    /// The runner is to stop, or its lease is lost.
    pub(crate) stop: CancellationToken,
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

/// Why an assignment ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Shutdown,
    Over,
    /// The runner can't keep it.
    Leave,
}

/// Runs the attempt to its end. The start is settled when the claim is stored, or when there is nothing to claim.
pub(crate) async fn run(shared: &Shared, offer: Offer) {
    let seq = offer.start.seq;
    match shared.board.begin(seq) {
        Ok(()) => {
            attempt(shared, offer).await;
            shared.board.end(seq);
        }
        // Offered again because its answer was lost.
        Err(true) => offer.settle().await,
        // Because it is late: the attempt that is at it will see to it.
        Err(false) => {}
    }
}

async fn attempt(shared: &Shared, offer: Offer) {
    let start = &offer.start;
    let reporter = Reporter {
        nats: shared.control.clone(),
        scenario: start.scenario.clone(),
        run: start.run,
        runner: shared.board.runner().clone(),
        lease: shared.lease.clone(),
        meter: None,
    };
    let mut follow = shared.log.follow(&start.scenario, start.seq);
    let sent = AtomicBool::new(false);
    let claimed = tokio::select! {
        () = shared.stop.cancelled() => None,
        claimed = claim(shared, &offer, &reporter, &mut follow, &sent) => Some(claimed),
    };
    match claimed {
        Some(true) => shared.board.claimed(start.seq),
        Some(false) => return offer.settle().await,
        None => {
            offer.hand_back().await;
            if !sent.load(Ordering::Relaxed) {
                return;
            }
        }
    }
    if claimed == Some(true) {
        offer.settle().await;
    }
    let mut attempt = Attempt { shared, start: offer.start, reporter, follow };
    attempt.wait_and_run().await;
}

/// Claims a start and says all the time that it is being tried; false: it is void.
async fn claim(shared: &Shared, offer: &Offer, reporter: &Reporter, follow: &mut Follow, sent: &AtomicBool) -> bool {
    let mut work = pin!(async {
        if is_superseded(shared, follow).await {
            return false;
        }
        sent.store(true, Ordering::Relaxed);
        reporter.report(Fact::Claimed { start: offer.start.seq }).await;
        true
    });
    let mut signs = interval_at(tokio::time::Instant::now() + starts::PROGRESS, starts::PROGRESS);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            claimed = &mut work => return claimed,
            _ = signs.tick() => offer.keep().await,
        }
    }
}

/// Whether the log already tells of something that makes the start void. Waits for nothing that is not there.
async fn is_superseded(shared: &Shared, follow: &mut Follow) -> bool {
    let Some(newest) = follow.join().await else { return false };
    // One look suffices: after a start there is nothing but refusals until somebody has it or it is over.
    if newest.kind != REFUSED {
        return true;
    }
    loop {
        let entry = follow.next().await;
        if let Some((event, data)) = parse(&entry)
            && !matches!(meaning(shared, &event, &data), Meaning::Nothing)
        {
            return true;
        }
        if entry.seq >= newest.seq {
            return false;
        }
    }
}

/// The type of the only events that leave a start as it is.
const REFUSED: &str = "command_refused";

struct Attempt<'a> {
    shared: &'a Shared,
    start: Start,
    reporter: Reporter,
    follow: Follow,
}

impl Attempt<'_> {
    async fn wait_and_run(&mut self) {
        let stop = self.shared.stop.clone();
        let (scenario, run) = (self.start.scenario.clone(), self.start.run);
        let fence = tokio::select! {
            () = stop.cancelled() => return self.decline().await,
            fence = self.assignment() => fence,
        };
        if let Some(fence) = fence {
            info!(%scenario, %run, fence, "running");
            self.run(fence).await;
            info!(%scenario, %run, fence, "let go");
        }
    }

    /// The runner stops, and its claim is not answered: should it still be given the scenario, it hands it on.
    async fn decline(&mut self) {
        let verdict = if self.shared.lease.holds() {
            timeout(VERDICT, self.assignment()).await.ok().flatten()
        } else {
            // Whoever decides may be as cut off as this runner: it is waited for as long as for other goodbyes.
            self.assignment().await
        };
        if let Some(fence) = verdict {
            self.reporter.report_left(fence).await;
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
        let shared = self.shared;
        let meter = shared.board.open(&self.start.scenario, self.start.run, fence);
        let reporter = Reporter { meter: Some(meter.clone()), ..self.reporter.clone() };
        let stops = Stops::new(shared.lease.clone());
        let (sender, reports) = mpsc::channel(REPORTS);
        // In a task of its own: reporting a fact may wait for the server while frames go on.
        let outputs = self.outputs(meter.clone());
        let pipeline = pipeline::run(self.job(fence), shared.frames.clone(), meter.clone(), sender, stops.clone());
        let mut pipeline = tokio::spawn(outputs.around(stops.clone(), pipeline));
        let telling = tokio::spawn(tell(reporter.clone(), fence, reports));

        let (end, ended) = self.until_the_end(fence, &reporter, &mut pipeline, telling).await;
        if end == End::Shutdown { &stops.close } else { &stops.abandon }.cancel();
        self.goodbye(end, fence, &reporter, &meter, (!ended).then_some(pipeline)).await;
        shared.board.close(&meter);
    }

    /// Where the scenario's recordings lie.
    fn folder(&self) -> PathBuf {
        self.shared.recordings.join(self.start.scenario.as_str())
    }

    fn outputs(&self, meter: Arc<Meter>) -> Outputs {
        let Start { scenario, run, settings, .. } = &self.start;
        Outputs {
            scenario: scenario.clone(),
            run: *run,
            settings: settings.outputs.clone(),
            folder: self.folder(),
            nats: self.shared.control.clone(),
            hooks: self.shared.hooks.clone(),
            meter,
        }
    }

    fn job(&self, fence: u64) -> Job {
        let Start { scenario, run, settings, .. } = &self.start;
        let folder = self.folder();
        Job {
            scenario: scenario.clone(),
            run: *run,
            fence,
            settings: settings.clone(),
            video: settings.outputs.video.then(|| folder.join(format!("{run}.mp4"))),
            limits: self.shared.limits,
            secret_key: self.shared.secret_key.clone(),
            workers: self.shared.workers.clone(),
        }
    }

    /// Runs until the log or the runner ends the assignment; whether the pipeline has ended by then.
    async fn until_the_end(
        &mut self,
        fence: u64,
        reporter: &Reporter,
        pipeline: &mut JoinHandle<Outcome>,
        telling: JoinHandle<()>,
    ) -> (End, bool) {
        let stop = self.shared.stop.clone();
        let mut telling = Aborted(Some(telling));
        // Telling how the pipeline ended may wait for the server: the log is listened to meanwhile.
        let mut report: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        let mut ended = false;
        loop {
            let reporting = async {
                match &mut report {
                    Some(report) => report.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return (End::Leave, ended),
                outcome = &mut *pipeline, if !ended => {
                    ended = true;
                    let outcome = outcome.unwrap_or_else(|error| {
                        Outcome::Failed { error: format!("the pipeline broke: {error}"), retry: true }
                    });
                    let fact = match outcome {
                        Outcome::Ended { frames, of, error } => Fact::Ended { fence, frames, of, error },
                        Outcome::Failed { error, retry } => Fact::Failed { fence, error, retry },
                        Outcome::Fenced => return (End::Over, ended),
                        // The lease: the runner is about to say so.
                        Outcome::Cancelled => continue,
                    };
                    let (reporter, told) = (reporter.clone(), telling.0.take());
                    report = Some(Box::pin(async move {
                        let mut told = Aborted(told);
                        // What the pipeline told before its end comes first.
                        if let Some(told) = &mut told.0
                            && let Err(error) = told.await
                        {
                            warn!(%error, "reporting broke");
                        }
                        reporter.report(fact).await;
                    }));
                }
                () = reporting => report = None,
                meaning = self.next_meaning() => match meaning {
                    Meaning::Shutdown => return (End::Shutdown, ended),
                    Meaning::Over => return (End::Over, ended),
                    // Its own assignment, read again.
                    Meaning::Mine(_) | Meaning::Nothing => {}
                }
            }
        }
    }

    /// Lets go, and says so.
    async fn goodbye(
        &mut self,
        end: End,
        fence: u64,
        reporter: &Reporter,
        meter: &Meter,
        pipeline: Option<JoinHandle<Outcome>>,
    ) {
        let scenario = &self.start.scenario;
        if end == End::Shutdown {
            let shutdown = async {
                // At once, whatever the pipeline is at.
                reporter.report(Fact::Stopping { fence }).await;
                if let Some(pipeline) = pipeline
                    && let Err(error) = pipeline.await
                {
                    warn!(%scenario, %error, "the pipeline broke");
                }
                reporter.report(Fact::Released { fence, frames: meter.frames() }).await;
            };
            // Without its lease the runner has nothing more to say; its silence is an answer, too.
            return tokio::select! {
                () = self.shared.lease.lost() => {}
                () = shutdown => {}
            };
        }
        if let Some(mut pipeline) = pipeline
            && timeout(LET_GO, &mut pipeline).await.is_err()
        {
            warn!(%scenario, "the pipeline does not end: it is dropped");
            pipeline.abort();
        }
        if end == End::Leave {
            // The scenario goes to another runner at once, not after a silence, and nobody failed.
            reporter.report_left(fence).await;
        }
    }
}

/// A task that ends with its owner.
struct Aborted(Option<JoinHandle<()>>);

impl Drop for Aborted {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
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

fn parse(entry: &Entry) -> Option<(Event, EventData)> {
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
        // Also the same attempt's, offered again: whoever is not assigned yet claims that one.
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
