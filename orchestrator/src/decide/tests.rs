//! The state machine as a table (every state × every input), and what must hold for any sequence of inputs.

use kadr_shared::{
    domain::{Cause, CommandKind, Event, InterruptionKind},
    settings::Settings,
};
use proptest::prelude::*;

use super::*;

const RUN: RunId = RunId::from_u128(1);
const START: u64 = 10;
const FENCE: u64 = 20;

fn settings() -> Settings {
    serde_json::from_str(r#"{"source": {"url": "/data/a.mp4"}}"#).unwrap()
}

fn runner() -> RunnerId {
    "r1".parse().unwrap()
}

fn context() -> Context {
    Context { active_for: Duration::ZERO, new_run: RUN, jitter: 0.5 }
}

/// When the server stored what is folded here.
const NOW: Timestamp = Timestamp::EPOCH;

fn cause() -> Cause {
    Cause { input: Some(1), id: "k".into() }
}

/// A state by its history: given these events, each at the sequence that is named.
fn given(history: &[(u64, EventData)]) -> State {
    history.iter().fold(State::default(), |state, (seq, data)| state.evolve(*seq, NOW, &cause(), data))
}

fn created() -> (u64, EventData) {
    (1, EventData::ScenarioCreated { settings: settings(), generation: 1 })
}

fn start() -> (u64, EventData) {
    (START, EventData::StartRequested { run: RUN, attempt: 1, settings: Box::new(settings()) })
}

fn assigned() -> (u64, EventData) {
    (FENCE, EventData::RunnerAssigned { run: RUN, attempt: 1, runner: runner() })
}

fn activated() -> (u64, EventData) {
    (21, EventData::Activated { run: RUN })
}

fn stop() -> (u64, EventData) {
    (30, EventData::StopRequested { run: RUN })
}

fn acknowledged(gone: bool) -> (u64, EventData) {
    (31, EventData::ShutdownAcknowledged { run: RUN, gone })
}

fn attempt_failed() -> (u64, EventData) {
    (22, EventData::AttemptFailed { run: RUN, attempt: 1, error: "lost".into(), failures: 1, pause_ms: 500 })
}

/// Every state, with those that differ in what they wait for.
fn states() -> Vec<(&'static str, State)> {
    vec![
        ("absent", given(&[])),
        ("inactive", given(&[created()])),
        ("init_startup", given(&[created(), start()])),
        ("init_startup (retry)", given(&[created(), start(), assigned(), attempt_failed()])),
        ("in_startup_processing", given(&[created(), start(), assigned()])),
        ("active", given(&[created(), start(), assigned(), activated()])),
        ("init_shutdown", given(&[created(), start(), assigned(), stop()])),
        ("init_shutdown (nobody)", given(&[created(), start(), stop()])),
        ("in_shutdown_processing", given(&[created(), start(), assigned(), stop(), acknowledged(false)])),
        ("in_shutdown_processing (nobody)", given(&[created(), start(), stop(), acknowledged(true)])),
    ]
}

fn fact(fact: Fact) -> Input {
    Input::Fact { run: RUN, runner: runner(), fact }
}

/// Every input, each as fresh as it can be.
fn inputs() -> Vec<(&'static str, Input)> {
    let error = || "no".to_owned();
    vec![
        ("create", Input::Command(Command::Create { settings: settings() })),
        ("reconfigure", Input::Command(Command::Reconfigure { settings: settings() })),
        ("start", Input::Command(Command::Start)),
        ("stop", Input::Command(Command::Stop)),
        ("delete", Input::Command(Command::Delete)),
        ("claimed", fact(Fact::Claimed { start: START })),
        ("streaming", fact(Fact::Streaming { fence: FENCE })),
        ("interrupted", fact(Fact::Interrupted { fence: FENCE, kind: InterruptionKind::Source, error: error() })),
        ("resumed", fact(Fact::Resumed { fence: FENCE })),
        ("ended", fact(Fact::Ended { fence: FENCE, frames: 3, of: Some(3), error: None })),
        ("failed, retry", fact(Fact::Failed { fence: FENCE, error: error(), retry: true })),
        ("failed for good", fact(Fact::Failed { fence: FENCE, error: error(), retry: false })),
        ("left", fact(Fact::Left { fence: FENCE })),
        ("stopping", fact(Fact::Stopping { fence: FENCE })),
        ("released", fact(Fact::Released { fence: FENCE, frames: 3 })),
        ("runner gone", Input::Signal(Signal::RunnerGone { fence: FENCE, error: error() })),
        ("proceed", Input::Signal(Signal::Proceed)),
        ("retry due", Input::Signal(Signal::RetryDue { since: 22 })),
        ("start lost", Input::Signal(Signal::StartLost { start: START })),
    ]
}

/// What is decided, in a word: the event's type, for refusals the reason, `-` for nothing.
fn word(decided: Option<&EventData>) -> String {
    match decided {
        None => "-".into(),
        Some(EventData::CommandRefused { reason, .. }) => {
            format!("!{}", serde_json::to_value(reason).unwrap().as_str().unwrap())
        }
        Some(data) => data.kind().into(),
    }
}

/// The whole machine. A row an input, a column a state, in the order of [`states`].
#[rustfmt::skip]
const TABLE: [(&str, [&str; 10]); 19] = [
    //                  absent             inactive                 init_startup        (retry)             in_startup_processing   active                  init_shutdown             (nobody)                  in_shutdown_processing (nobody)
    ("create",          ["scenario_created", "!already_exists",      "!already_exists",  "!already_exists",  "!already_exists",      "!already_exists",      "!already_exists",        "!already_exists",        "!already_exists",     "!already_exists"]),
    ("reconfigure",     ["!not_found",     "scenario_reconfigured",  "!still_running",   "!still_running",   "!still_running",       "!still_running",       "!still_running",         "!still_running",         "!still_running",      "!still_running"]),
    ("start",           ["!not_found",     "start_requested",        "!already_running", "!already_running", "!already_running",     "!already_running",     "!shutting_down",         "!shutting_down",         "!shutting_down",      "!shutting_down"]),
    ("stop",            ["!not_found",     "!not_running",           "stop_requested",   "stop_requested",   "stop_requested",       "stop_requested",       "stop_requested",         "stop_requested",         "stop_requested",      "stop_requested"]),
    ("delete",          ["!not_found",     "scenario_deleted",       "!still_running",   "!still_running",   "!still_running",       "!still_running",       "!still_running",         "!still_running",         "!still_running",      "!still_running"]),
    ("claimed",         ["-",              "-",                      "runner_assigned",  "-",                "-",                    "-",                    "-",                      "-",                      "-",                   "-"]),
    ("streaming",       ["-",              "-",                      "-",                "-",                "activated",            "-",                    "-",                      "-",                      "-",                   "-"]),
    ("interrupted",     ["-",              "-",                      "-",                "-",                "source_interrupted",   "source_interrupted",   "-",                      "-",                      "-",                   "-"]),
    ("resumed",         ["-",              "-",                      "-",                "-",                "source_resumed",       "source_resumed",       "-",                      "-",                      "-",                   "-"]),
    ("ended",           ["-",              "-",                      "-",                "-",                "source_ended",         "source_ended",         "-",                      "-",                      "-",                   "-"]),
    ("failed, retry",   ["-",              "-",                      "-",                "-",                "attempt_failed",       "attempt_failed",       "-",                      "-",                      "-",                   "-"]),
    ("failed for good", ["-",              "-",                      "-",                "-",                "run_failed",           "run_failed",           "-",                      "-",                      "-",                   "-"]),
    ("left",            ["-",              "-",                      "-",                "-",                "runner_left",          "runner_left",          "shutdown_acknowledged",  "-",                      "deactivated",         "-"]),
    ("stopping",        ["-",              "-",                      "-",                "-",                "-",                    "-",                    "shutdown_acknowledged",  "-",                      "-",                   "-"]),
    ("released",        ["-",              "-",                      "-",                "-",                "-",                    "-",                    "shutdown_acknowledged",  "-",                      "deactivated",         "-"]),
    ("runner gone",     ["-",              "-",                      "-",                "-",                "attempt_failed",       "attempt_failed",       "shutdown_acknowledged",  "-",                      "deactivated",         "-"]),
    ("proceed",         ["-",              "-",                      "-",                "-",                "-",                    "-",                    "-",                      "shutdown_acknowledged",  "-",                   "deactivated"]),
    ("retry due",       ["-",              "-",                      "-",                "start_requested",  "-",                    "-",                    "-",                      "-",                      "-",                   "-"]),
    ("start lost",      ["-",              "-",                      "start_requested",  "-",                "-",                    "-",                    "-",                      "-",                      "-",                   "-"]),
];

#[test]
fn every_state_answers_every_input_as_the_table_says() {
    let (states, inputs) = (states(), inputs());
    assert_eq!(TABLE.map(|(name, _)| name), *inputs.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for ((_, row), (input_name, input)) in TABLE.iter().zip(&inputs) {
        for (wanted, (state_name, state)) in row.iter().zip(&states) {
            let found = word(decide(state, input, &context()).as_ref());
            assert_eq!(&found, wanted, "{input_name} in {state_name}");
        }
    }
}

#[test]
fn what_carries_an_older_fence_or_comes_from_another_is_void() {
    let other_run = RunId::from_u128(2);
    let other: RunnerId = "r2".parse().unwrap();
    let older = |f: &Fact| {
        let mut json = serde_json::to_value(f).unwrap();
        let name = if json.get("start").is_some() { "start" } else { "fence" };
        json[name] = serde_json::json!(f.fence() - 1);
        serde_json::from_value::<Fact>(json).unwrap()
    };
    for (state_name, state) in states() {
        for (name, input) in inputs() {
            let Input::Fact { fact, .. } = &input else { continue };
            let stale = Input::Fact { run: RUN, runner: runner(), fact: older(fact) };
            assert_eq!(decide(&state, &stale, &context()), None, "an older {name} in {state_name}");
            let foreign = Input::Fact { run: other_run, runner: runner(), fact: fact.clone() };
            assert_eq!(decide(&state, &foreign, &context()), None, "{name} of another run in {state_name}");
            if !matches!(fact, Fact::Claimed { .. }) {
                let foreign = Input::Fact { run: RUN, runner: other.clone(), fact: fact.clone() };
                assert_eq!(decide(&state, &foreign, &context()), None, "{name} of another runner in {state_name}");
            }
        }
    }
}

#[test]
fn attempts_end_by_the_policy_and_pauses_grow() {
    let mut limited = settings();
    limited.restart.limit = 2;
    let mut state = given(&[created()]);
    let mut seq = 1;
    let step = |state: State, data: EventData, seq: &mut u64| {
        *seq += 1;
        state.evolve(*seq, NOW, &cause(), &data)
    };
    state = step(state, EventData::StartRequested { run: RUN, attempt: 1, settings: Box::new(limited) }, &mut seq);
    let mut pauses = Vec::new();
    loop {
        let attempt = state.run.as_ref().unwrap().attempt;
        state = step(state, EventData::RunnerAssigned { run: RUN, attempt, runner: runner() }, &mut seq);
        let gone = Input::Signal(Signal::RunnerGone { fence: seq, error: "lost".into() });
        let data = decide(&state, &gone, &context()).unwrap();
        state = step(state, data.clone(), &mut seq);
        let EventData::AttemptFailed { pause_ms, .. } = data else {
            assert_eq!(data.kind(), "run_failed");
            break;
        };
        pauses.push(pause_ms);
        let signal = Signal::RetryDue { since: seq };
        let (pause, at) = (Duration::from_millis(pause_ms), NOW.after(Duration::from_millis(pause_ms)));
        assert_eq!(due(&state), Some(Due::After { pause, at, signal: signal.clone() }));
        let data = decide(&state, &Input::Signal(signal), &context()).unwrap();
        state = step(state, data, &mut seq);
    }
    assert_eq!(pauses, [375, 750]);
    assert!(matches!(&state.phase, Phase::InitShutdown { shutdown } if shutdown.reason == EndReason::Failed));
}

#[test]
fn an_attempt_that_ran_steadily_begins_the_count_of_failures_anew() {
    let failures_after = |active: Duration| {
        let again = EventData::StartRequested { run: RUN, attempt: 2, settings: Box::new(settings()) };
        let fence = 24;
        let second = EventData::RunnerAssigned { run: RUN, attempt: 2, runner: runner() };
        let history = [created(), start(), assigned(), attempt_failed(), (23, again), (fence, second)];
        let state = given(&history).evolve(25, NOW, &cause(), &activated().1);
        let later = Context { active_for: active, ..context() };
        let gone = Input::Signal(Signal::RunnerGone { fence, error: "lost".into() });
        match decide(&state, &gone, &later) {
            Some(EventData::AttemptFailed { failures, .. }) => failures,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failures_after(STEADY - Duration::from_millis(1)), 2);
    assert_eq!(failures_after(STEADY), 1);
}

#[test]
fn a_signal_of_an_earlier_wait_is_void() {
    let waiting = given(&[created(), start(), assigned(), attempt_failed()]);
    assert_eq!(decide(&waiting, &Input::Signal(Signal::RetryDue { since: 21 }), &context()), None);
    let started = given(&[created(), start()]);
    assert_eq!(decide(&started, &Input::Signal(Signal::StartLost { start: START - 1 }), &context()), None);
    let again = decide(&started, &Input::Signal(Signal::StartLost { start: START }), &context());
    assert!(
        matches!(again, Some(EventData::StartRequested { run: RUN, attempt: 1, .. })),
        "the same attempt: {again:?}"
    );
}

#[test]
fn a_runner_that_leaves_in_order_is_no_failure() {
    let mut never = settings();
    never.restart.policy = kadr_shared::settings::RestartPolicy::Never;
    let start = (START, EventData::StartRequested { run: RUN, attempt: 1, settings: Box::new(never) });
    let state = given(&[created(), start, assigned(), activated()]);
    let left = decide(&state, &fact(Fact::Left { fence: FENCE }), &context()).unwrap();
    let state = state.evolve(22, NOW, &cause(), &left);
    let again = decide(&state, &Input::Signal(Signal::RetryDue { since: 22 }), &context()).unwrap();
    assert!(matches!(again, EventData::StartRequested { attempt: 2, .. }), "at once: {again:?}");
    assert_eq!(state.run.unwrap().failures, 0);
}

#[test]
fn a_stop_during_the_shutdown_of_a_completed_run_leaves_it_completed() {
    let ended = (30, EventData::SourceEnded { run: RUN, frames: 3, of: Some(3), error: None });
    let state = given(&[created(), start(), assigned(), activated(), ended, (31, stop().1)]);
    let released = fact(Fact::Released { fence: FENCE, frames: 3 });
    let state = state.evolve(32, NOW, &cause(), &acknowledged(false).1);
    let data = decide(&state, &released, &context()).unwrap();
    let state = state.evolve(33, NOW, &cause(), &data);
    assert_eq!(state.ended.unwrap().reason, EndReason::Completed);
    assert_eq!(state.run.unwrap().frames, Some(3));
}

/// Drives the machine as the leader does: every decision is appended and folded.
#[derive(Default)]
struct Machine {
    state: State,
    log: Vec<Event>,
    at: i64,
}

impl Machine {
    fn feed(&mut self, input: &Input) {
        self.at += 700;
        let time = Timestamp::from_millis(self.at);
        let context = Context {
            active_for: Duration::from_millis(700),
            new_run: RunId::from_u128(1 + self.log.len() as u128),
            jitter: 0.3,
        };
        let Some(data) = decide(&self.state, input, &context) else { return };
        let seq = 10 + self.log.len() as u64;
        let input = matches!(input, Input::Command(_) | Input::Fact { .. }).then_some(seq);
        let cause = Cause { input, id: "k".into() };
        let body = data.body(cause.clone(), "test".into()).unwrap();
        self.log.push(Event {
            seq,
            time,
            scenario: "gate".parse().unwrap(),
            kind: data.kind().into(),
            version: body.version,
            cause: body.cause,
            actor: body.actor,
            data: body.data,
        });
        self.state = std::mem::take(&mut self.state).evolve(seq, time, &cause, &data);
    }

    /// Does what is due, to the end of what is due at once or by waiting.
    fn settle(&mut self) {
        for _ in 0..8 {
            match due(&self.state) {
                None => return,
                Some(Due::Now(signal)) => self.feed(&Input::Signal(signal)),
                Some(Due::After { signal, .. }) => {
                    self.feed(&Input::Signal(signal));
                    return;
                }
                Some(Due::Claim { .. }) => return,
                Some(Due::Silence(held)) => {
                    self.feed(&Input::Signal(Signal::RunnerGone { fence: held.fence, error: "silent".into() }));
                }
            }
        }
        panic!("the leader is never done in {:?}", self.state.phase);
    }
}

/// An input that means something in most states: fences and starts are those of the machine at that moment.
fn make(choice: u8, fresh: bool, machine: &Machine) -> Input {
    let run = machine.state.run.as_ref().map_or(RUN, |r| r.id);
    let fence = machine.state.assignment().map_or(0, |a| a.fence)
        - u64::from(!fresh && machine.state.seq > 0).min(machine.state.assignment().map_or(0, |a| a.fence));
    let start = match machine.state.phase {
        Phase::InitStartup { wait: Wait::Runner { start } } => start,
        _ => machine.state.seq,
    };
    let since = match machine.state.phase {
        Phase::InitStartup { wait: Wait::Retry { since, .. } } => since,
        _ => machine.state.seq,
    };
    let fact = |fact| Input::Fact { run, runner: runner(), fact };
    match choice % 19 {
        0 => Input::Command(Command::Create { settings: settings() }),
        1 => Input::Command(Command::Reconfigure { settings: settings() }),
        2 | 3 => Input::Command(Command::Start),
        4 => Input::Command(Command::Stop),
        5 => Input::Command(Command::Delete),
        6 | 7 => fact(Fact::Claimed { start }),
        8 => fact(Fact::Streaming { fence }),
        9 => fact(Fact::Interrupted { fence, kind: InterruptionKind::Inference, error: "x".into() }),
        10 => fact(Fact::Resumed { fence }),
        11 => fact(Fact::Ended { fence, frames: 1, of: None, error: None }),
        12 => fact(Fact::Failed { fence, error: "x".into(), retry: fresh }),
        13 => fact(Fact::Stopping { fence }),
        14 => fact(Fact::Released { fence, frames: 1 }),
        15 => fact(Fact::Left { fence }),
        16 => Input::Signal(Signal::RunnerGone { fence, error: "x".into() }),
        17 => Input::Signal(Signal::StartLost { start }),
        _ => Input::Signal(Signal::RetryDue { since }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_sequence_of_inputs_breaks_it(choices in prop::collection::vec((any::<u8>(), any::<bool>()), 0..60)) {
        let mut machine = Machine::default();
        machine.feed(&Input::Command(Command::Create { settings: settings() }));
        for (choice, fresh) in choices {
            let before = machine.log.len();
            let input = make(choice, fresh, &machine);
            machine.feed(&input);
            if matches!(input, Input::Command(_)) {
                prop_assert_eq!(machine.log.len(), before + 1, "a command is always answered, once");
            }
            let state = &machine.state;
            prop_assert!(state.exists() || state.phase == Phase::Inactive, "what does not exist does not run");
            prop_assert!(state.phase == Phase::Inactive || state.run.is_some());
            prop_assert!(state.phase == Phase::Inactive || state.ended.is_none());
        }

        // Replay equals live state.
        let replayed = machine.log.iter().fold(State::default(), |state, event| {
            state.evolve(event.seq, event.time, &event.cause, &event.parse().unwrap())
        });
        prop_assert_eq!(&replayed, &machine.state);
        let stored: State = serde_json::from_str(&serde_json::to_string(&replayed).unwrap()).unwrap();
        prop_assert_eq!(&stored, &machine.state, "a state survives being stored");
    }

    #[test]
    fn stop_always_leads_to_inactive(choices in prop::collection::vec((any::<u8>(), any::<bool>()), 0..60)) {
        let mut machine = Machine::default();
        machine.feed(&Input::Command(Command::Create { settings: settings() }));
        for (choice, fresh) in choices {
            let input = make(choice, fresh, &machine);
            machine.feed(&input);
        }
        let running = machine.state.phase != Phase::Inactive;
        machine.feed(&Input::Command(Command::Stop));
        if !running {
            let refused = machine.log.last().unwrap().parse().unwrap();
            prop_assert!(matches!(refused, EventData::CommandRefused { command: CommandKind::Stop, .. }), "{:?}", refused);
        }
        // Nobody else says anything any more: no runner, no camera, no worker.
        machine.settle();
        prop_assert_eq!(&machine.state.phase, &Phase::Inactive);
        prop_assert_eq!(due(&machine.state), None, "nothing more to do");
    }

    #[test]
    fn evolve_takes_events_that_no_decision_would_make(order in prop::collection::vec(0usize..12, 0..40)) {
        let events = [
            created().1, start().1, assigned().1, activated().1, stop().1, acknowledged(true).1, attempt_failed().1,
            EventData::ScenarioDeleted {},
            EventData::RunFailed { run: RUN, error: "x".into() },
            EventData::Deactivated { run: RUN, reason: EndReason::Stopped, frames: None, error: None },
            EventData::SourceEnded { run: RUN, frames: 1, of: None, error: None },
            EventData::AttemptFailed { run: RUN, attempt: 9, error: "x".into(), failures: 9, pause_ms: 1 },
        ];
        let state = order.iter().enumerate().fold(State::default(), |state, (i, &which)| {
            state.evolve(i as u64 + 1, NOW, &cause(), &events[which])
        });
        prop_assert_eq!(state.seq, order.len() as u64);
    }
}
