//! The state machine's table, written down a second time from ARCHITECTURE.md and design.md: which event may happen in
//! which state, and which state follows. It calls nothing of kadr's own code, and complains instead of ignoring.

use serde_json::Value;

use crate::streams::Message;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Inactive,
    InitStartup,
    InStartupProcessing,
    Active,
    InitShutdown,
    InShutdownProcessing,
}

use State::{Active, InShutdownProcessing, InStartupProcessing, Inactive, InitShutdown, InitStartup};

impl State {
    pub const ALL: [Self; 6] = [Inactive, InitStartup, InStartupProcessing, Active, InitShutdown, InShutdownProcessing];

    pub const fn name(self) -> &'static str {
        match self {
            Inactive => "inactive",
            InitStartup => "init_startup",
            InStartupProcessing => "in_startup_processing",
            Active => "active",
            InitShutdown => "init_shutdown",
            InShutdownProcessing => "in_shutdown_processing",
        }
    }
}

/// The states that an event may happen in, and the state after it (none: as before).
fn row(event: &str) -> Option<(&'static [State], Option<State>)> {
    Some(match event {
        "scenario_created" | "scenario_reconfigured" | "scenario_deleted" => (&[Inactive], Some(Inactive)),
        "command_refused" => (&State::ALL, None),
        "start_requested" => (&[Inactive, InitStartup], Some(InitStartup)),
        "runner_assigned" => (&[InitStartup], Some(InStartupProcessing)),
        "activated" => (&[InStartupProcessing], Some(Active)),
        "source_interrupted" | "source_resumed" => (&[InStartupProcessing, Active], None),
        "attempt_failed" | "runner_left" => (&[InStartupProcessing, Active], Some(InitStartup)),
        "source_ended" | "run_failed" => (&[InStartupProcessing, Active], Some(InitShutdown)),
        // In a shutdown that is under way it is noted and changes nothing.
        "stop_requested" => (&[InitStartup, InStartupProcessing, Active, InitShutdown, InShutdownProcessing], None),
        "shutdown_acknowledged" => (&[InitShutdown], Some(InShutdownProcessing)),
        "deactivated" => (&[InShutdownProcessing], Some(Inactive)),
        _ => return None,
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub reason: String,
    pub error: Option<String>,
    pub at: i64,
}

/// A scenario as its log has it.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    pub exists: bool,
    pub generation: u64,
    pub settings: Value,
    pub state: State,
    pub run: Option<String>,
    pub attempt: u64,
    pub ended: Option<Ended>,
    /// What the run was started with.
    run_settings: Value,
    /// The start that a claim must name; none while the next attempt's moment is waited for.
    start: Option<u64>,
    /// Failed attempts in a row, and since when the present one gives results.
    failures: u64,
    active_since: Option<i64>,
    /// Fence and runner.
    pub held: Option<(u64, String)>,
    /// Why the shutdown under way began.
    reason: Option<&'static str>,
    pub seq: u64,
    pub last_input: u64,
}

/// Why a start is asked for again under the same attempt: nobody has claimed it, and nobody will.
const LOST: &str = "start_lost";
/// An attempt that was active for so long begins the count of failures anew.
const STEADY_MS: i64 = 60_000;
const TOLERANCE_MS: i64 = 2_000;

/// `{fence}-{name}-{count}-{runner}`, the id of a runner's fact.
fn fact(id: &str) -> Option<(u64, &str, &str)> {
    let mut parts = id.splitn(4, '-');
    let (fence, name) = (parts.next()?.parse().ok()?, parts.next()?);
    let _count: u32 = parts.next()?.parse().ok()?;
    Some((fence, name, parts.next()?))
}

impl Folded {
    /// Takes one more event; says what is wrong with it, if anything.
    pub fn apply(&mut self, event: &Message) -> Vec<String> {
        let mut wrong = Vec::new();
        let kind = event.token(3).to_owned();
        let Some((from, to)) = row(&kind) else { return vec![format!("{kind} is no event")] };
        if !from.contains(&self.state) {
            wrong.push(format!("{kind} in state {}", self.state.name()));
        }
        if kind != "scenario_created" && kind != "command_refused" && !self.exists {
            wrong.push(format!("{kind} of a scenario that does not exist"));
        }
        if event.seq <= self.seq {
            wrong.push(format!("sequence {} after {}", event.seq, self.seq));
        }
        self.seq = event.seq;
        if let Some(input) = event.number("/cause/input") {
            if input <= self.last_input {
                wrong.push(format!("caused by input {input}, after one caused by {}", self.last_input));
            }
            self.last_input = input;
        }
        self.check_run(&kind, event, &mut wrong);
        self.check_fact(&kind, event, &mut wrong);
        self.change(&kind, event, &mut wrong);
        self.state = to.unwrap_or(self.state);
        wrong
    }

    /// All events within a run name it; attempts go up by one and nothing else.
    fn check_run(&self, kind: &str, event: &Message, wrong: &mut Vec<String>) {
        let Some(run) = event.body.pointer("/data/run").and_then(Value::as_str) else { return };
        if kind != "start_requested" || self.state != Inactive {
            if self.run.as_deref() != Some(run) {
                wrong.push(format!("{kind} names run {run}, not {:?}", self.run));
            }
            // A start that was lost is asked for once more: the same attempt.
            let wanted = self.attempt + u64::from(kind == "start_requested" && self.start.is_none());
            if event.number("/data/attempt").is_some_and(|attempt| attempt != wanted) {
                wrong.push(format!("{kind} names attempt {:?}, not {wanted}", event.number("/data/attempt")));
            }
        }
    }

    /// What a runner's fact caused must come from whoever holds the scenario, under its fence.
    fn check_fact(&self, kind: &str, event: &Message, wrong: &mut Vec<String>) {
        let Some((fence, name, runner)) = fact(event.text("/cause/id")) else { return };
        if event.number("/cause/input").is_none() {
            return;
        }
        if name == "claimed" {
            if self.start != Some(fence) {
                wrong.push(format!("{kind} by a claim of start {fence}, while {:?} waits for one", self.start));
            }
            if event.text("/data/runner") != runner {
                wrong.push(format!("{kind} for {} by a claim of {runner}", event.text("/data/runner")));
            }
        } else if self.held.as_ref().is_none_or(|(held, holder)| *held != fence || holder != runner) {
            wrong
                .push(format!("{kind} by fact {name} of {runner} under fence {fence}, while {:?} holds it", self.held));
        }
    }

    fn change(&mut self, kind: &str, event: &Message, wrong: &mut Vec<String>) {
        match kind {
            "scenario_created" => {
                let generation = event.number("/data/generation").unwrap_or(0);
                if self.exists || generation != self.generation + 1 {
                    wrong.push(format!("created as generation {generation} after {}", self.generation));
                }
                *self = Self {
                    exists: true,
                    generation,
                    settings: data(event, "settings"),
                    seq: self.seq,
                    last_input: self.last_input,
                    ..Self::default()
                };
            }
            "scenario_reconfigured" => self.settings = data(event, "settings"),
            "scenario_deleted" => self.exists = false,
            "command_refused" => self.check_refusal(event, wrong),
            "start_requested" => self.begin(event, wrong),
            "runner_assigned" => {
                if self.start.is_none() {
                    wrong.push("assigned while no start waits".to_owned());
                }
                self.held = Some((event.seq, event.text("/data/runner").to_owned()));
                self.start = None;
            }
            "activated" => self.active_since = Some(event.at),
            "attempt_failed" => self.fail(event, wrong),
            "runner_left" => (self.held, self.start) = (None, None),
            "source_ended" => self.reason = Some("completed"),
            "run_failed" => self.reason = Some("failed"),
            "stop_requested" if !matches!(self.state, InitShutdown | InShutdownProcessing) => {
                self.state = InitShutdown;
                self.reason = Some("stopped");
                self.start = None;
            }
            "deactivated" => {
                let reason = event.text("/data/reason").to_owned();
                if Some(reason.as_str()) != self.reason {
                    wrong.push(format!("ended as {reason}, while the shutdown began as {:?}", self.reason));
                }
                let error = event.body.pointer("/data/error").and_then(Value::as_str).map(str::to_owned);
                self.ended = Some(Ended { reason, error, at: event.at });
                (self.held, self.reason) = (None, None);
            }
            _ => {}
        }
    }

    fn begin(&mut self, event: &Message, wrong: &mut Vec<String>) {
        let settings = data(event, "settings");
        let attempt = event.number("/data/attempt").unwrap_or(0);
        if self.state == Inactive {
            if attempt != 1 || settings != self.settings {
                wrong.push(format!(
                    "a run begins with attempt {attempt}, with its scenario's settings: {}",
                    settings == self.settings
                ));
            }
            self.run_settings = settings;
            self.failures = 0;
        } else {
            if self.start.is_some() && event.text("/cause/id") != LOST {
                wrong.push("another attempt while a start waits for a claim".to_owned());
            }
            if settings != self.run_settings {
                wrong.push("an attempt has other settings than its run".to_owned());
            }
        }
        self.run = Some(event.text("/data/run").to_owned());
        self.attempt = attempt;
        self.start = Some(event.seq);
        self.active_since = None;
        self.ended = None;
    }

    /// Another attempt follows only as the run's restart policy allows, and the failures in a row are counted right.
    fn fail(&mut self, event: &Message, wrong: &mut Vec<String>) {
        let failures = event.number("/data/failures").unwrap_or(0);
        let steady = self.active_since.map_or(0, |since| event.at - since);
        // Who decides knows the moment a little earlier than the log, or has itself begun later than that and counts on.
        let anew = steady >= STEADY_MS - TOLERANCE_MS;
        if !(failures == self.failures + 1 || anew && failures == 1) {
            wrong.push(format!("failure {failures} after {}, having been active for {steady} ms", self.failures));
        }
        let policy = self.run_settings.pointer("/restart/policy").and_then(Value::as_str).unwrap_or_default();
        let limit = self.run_settings.pointer("/restart/limit").and_then(Value::as_u64).unwrap_or(0);
        if policy == "never" || policy == "on_failure" && failures > limit {
            wrong.push(format!("another attempt after failure {failures}, by the policy {policy} up to {limit}"));
        }
        self.failures = failures;
        (self.held, self.start) = (None, None);
    }

    /// A refusal must say what is so.
    fn check_refusal(&self, event: &Message, wrong: &mut Vec<String>) {
        let (command, reason) = (event.text("/data/command"), event.text("/data/reason"));
        let shutting_down = matches!(self.state, InitShutdown | InShutdownProcessing);
        let right = match (command, self.exists) {
            ("create", true) => "already_exists",
            ("start" | "stop" | "delete" | "reconfigure", false) => "not_found",
            ("start", true) if shutting_down => "shutting_down",
            ("start", true) if self.state != Inactive => "already_running",
            ("stop", true) if self.state == Inactive => "not_running",
            ("delete" | "reconfigure", true) if self.state != Inactive => "still_running",
            _ => "nothing to refuse",
        };
        if reason != right {
            wrong.push(format!("{command} refused as {reason} in state {}: {right}", self.state.name()));
        }
    }
}

fn data(event: &Message, name: &str) -> Value {
    event.body.pointer(&format!("/data/{name}")).cloned().unwrap_or(Value::Null)
}
