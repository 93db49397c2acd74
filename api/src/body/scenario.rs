//! A scenario as `GET /v1/scenarios/{id}` shows it: its state from the log, its numbers from its runner.

use kadr_shared::{
    domain::{self, EndReason, HealthStatus, Phase, State},
    id::ScenarioId,
    nodes::{CameraProgress, Progress},
};
use poem_openapi::{Enum, Object};
use serde::Serialize;

use super::SettingsBody;

/// A source with the model and settings to analyse it by, and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    state: StateName,
    /// The present run, or the last one; null: it has never run.
    run: Option<String>,
    /// Counts from 1 within the run; 0: it has never run.
    attempt: u32,
    health: Health,
    settings: SettingsBody,
    progress: Counted,
    /// How the last run ended; null while one is on or before the first.
    ended: Option<Ended>,
    /// The last sequence of the log that this answer has seen; of the past, the last one of this scenario's then.
    seq: u64,
    updated_at: String,
}

/// The six states of a scenario's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case", rename = "State")]
#[serde(rename_all = "snake_case")]
pub(super) enum StateName {
    Inactive,
    InitStartup,
    InStartupProcessing,
    Active,
    InitShutdown,
    InShutdownProcessing,
}

/// How it fares. A source that went away leaves the scenario active and its health `reconnecting`.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Health {
    status: Status,
    /// Since when it is so.
    since: String,
    /// When a camera's last frame came, or a file's last result was stored. Null: not known, or not running.
    last_frame_at: Option<String>,
    /// A file's nominal rate; frames that come from a camera a second, lately. Null: not known, or not running.
    source_fps: Option<f64>,
    /// Results stored a second, lately. Null: not known, or not running.
    analysed_fps: Option<f64>,
    /// Frames of this run whose results are stored, as far as is known.
    frames: u64,
    /// Frames of a camera that were not analysed, in this attempt: `camera` tells why. A file waits, and none is.
    dropped: u64,
    /// Of a camera, while it runs: its connection, and what it lost.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    camera: Option<Camera>,
    /// What is wrong, in words: by the log, or by the runner's own word of this moment (results can't be stored).
    error: Option<String>,
}

/// How a camera fares, in this attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Camera {
    /// Since when it plays; null: it does not, and is being tried.
    connected_since: Option<String>,
    /// Sessions after the first one.
    reconnects: u64,
    /// Frames dropped because inference was busy with as many as may be under way.
    dropped_busy: u64,
    /// Frames given up because their results did not come in time.
    dropped_late: u64,
    /// Images that could not be read.
    dropped_unreadable: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case", rename = "HealthStatus")]
#[serde(rename_all = "snake_case")]
enum Status {
    Idle,
    Starting,
    Ok,
    Reconnecting,
    Stopping,
    Failed,
}

/// How far the run is.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Progress")]
struct Counted {
    /// Frames whose results are stored.
    frame: u64,
    /// Frames that the source has; null: it does not say, as cameras do, or it is not known yet.
    of: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
struct Ended {
    reason: Reason,
    error: Option<String>,
    at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[oai(rename_all = "snake_case", rename = "EndReason")]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    Stopped,
    Completed,
    Failed,
}

/// A page of scenarios, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(crate) struct Scenarios {
    pub(crate) scenarios: Vec<Scenario>,
    /// The id to give as `after` for the next page; null: this is the last one.
    pub(crate) next: Option<String>,
    /// The last sequence of the log that this answer has seen.
    pub(crate) seq: u64,
}

impl Scenario {
    /// `None`: it does not exist. `seq` is up to where `state` has seen the log; `live` are its runner's numbers of now.
    pub(crate) fn new(id: &ScenarioId, state: &State, seq: u64, live: Option<&Progress>) -> Option<Self> {
        let settings = state.settings.as_ref()?;
        let run = state.run.as_ref();
        // The number that the log has is that of the run's end, and so the last word.
        let frames = run.and_then(|r| r.frames).or(live.map(|l| l.frames)).unwrap_or(0);
        let of = run.and_then(|r| r.of).or(live.and_then(|l| l.of));
        Some(Self {
            id: id.to_string(),
            state: (&state.phase).into(),
            run: run.map(|r| r.id.to_string()),
            attempt: run.map_or(0, |r| r.attempt),
            health: Health {
                status: state.health.status.into(),
                since: state.health.since.to_string(),
                last_frame_at: live.and_then(|l| l.last_frame_at).map(|t| t.to_string()),
                source_fps: live.and_then(|l| l.source_fps).and_then(rounded),
                analysed_fps: live.and_then(|l| l.analysed_fps).and_then(rounded),
                frames,
                dropped: live.map_or(0, |l| l.dropped),
                camera: live.and_then(|l| l.camera.as_ref()).map(Camera::from),
                // What the runner can't tell by a fact comes before what the log had to say earlier.
                error: live.and_then(|l| l.trouble.clone()).or_else(|| state.health.error.clone()),
            },
            settings: settings.into(),
            progress: Counted { frame: frames, of },
            ended: state.ended.as_ref().map(Ended::from),
            seq,
            updated_at: state.updated_at.to_string(),
        })
    }
}

impl From<&CameraProgress> for Camera {
    fn from(camera: &CameraProgress) -> Self {
        Self {
            connected_since: camera.connected_at.map(|t| t.to_string()),
            reconnects: camera.reconnects,
            dropped_busy: camera.busy,
            dropped_late: camera.late,
            dropped_unreadable: camera.unreadable,
        }
    }
}

/// To the hundredth: more would be noise. What is no number is not known.
fn rounded(fps: f64) -> Option<f64> {
    fps.is_finite().then(|| (fps * 100.0).round() / 100.0)
}

impl From<&Phase> for StateName {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Inactive => Self::Inactive,
            Phase::InitStartup { .. } => Self::InitStartup,
            Phase::InStartupProcessing { .. } => Self::InStartupProcessing,
            Phase::Active { .. } => Self::Active,
            Phase::InitShutdown { .. } => Self::InitShutdown,
            Phase::InShutdownProcessing { .. } => Self::InShutdownProcessing,
        }
    }
}

impl From<HealthStatus> for Status {
    fn from(status: HealthStatus) -> Self {
        match status {
            HealthStatus::Idle => Self::Idle,
            HealthStatus::Starting => Self::Starting,
            HealthStatus::Ok => Self::Ok,
            HealthStatus::Reconnecting => Self::Reconnecting,
            HealthStatus::Stopping => Self::Stopping,
            HealthStatus::Failed => Self::Failed,
        }
    }
}

impl From<&domain::Ended> for Ended {
    fn from(domain::Ended { reason, error, at }: &domain::Ended) -> Self {
        Self { reason: (*reason).into(), error: error.clone(), at: at.to_string() }
    }
}

impl From<EndReason> for Reason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Stopped => Self::Stopped,
            EndReason::Completed => Self::Completed,
            EndReason::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{
        domain::{Cause, EventData},
        id::RunId,
        time::Timestamp,
    };
    use serde_json::json;

    use super::*;

    const RUN: RunId = RunId::from_u128(7);

    fn fold(events: &[EventData]) -> State {
        let cause = Cause { input: Some(1), id: "k".into() };
        (1..).zip(events).fold(State::default(), |state, (seq, data)| {
            state.evolve(seq, Timestamp::from_millis(1_769_860_800_000 + seq as i64 * 1000), &cause, data)
        })
    }

    fn active() -> Vec<EventData> {
        let settings: kadr_shared::settings::Settings =
            serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap();
        vec![
            EventData::ScenarioCreated { settings: settings.clone(), generation: 1 },
            EventData::StartRequested { run: RUN, attempt: 1, settings: Box::new(settings) },
            EventData::RunnerAssigned { run: RUN, attempt: 1, runner: "r1".parse().unwrap() },
            EventData::Activated { run: RUN },
        ]
    }

    fn progress() -> Progress {
        Progress {
            scenario: "gate".parse().unwrap(),
            run: RUN,
            fence: 3,
            frames: 1200,
            of: Some(7500),
            dropped: 2,
            source_fps: Some(25.0),
            analysed_fps: Some(24.987_654),
            last_frame_at: Some(Timestamp::from_millis(1_769_860_900_000)),
            camera: None,
            trouble: None,
        }
    }

    #[test]
    fn is_as_design_md_has_it() {
        let scenario = Scenario::new(&"gate".parse().unwrap(), &fold(&active()), 42, Some(&progress())).unwrap();
        let expected = json!({
            "id": "gate", "state": "active", "run": RUN.to_string(), "attempt": 1,
            "health": {"status": "ok", "since": "2026-01-31T12:00:04.000Z", "last_frame_at": "2026-01-31T12:01:40.000Z",
                       "source_fps": 25.0, "analysed_fps": 24.99, "frames": 1200, "dropped": 2, "error": null},
            "settings": {"source": {"url": "file:///a.mp4"}, "model": "yolov8n",
                         "analysis": {"input_size": null, "confidence": 0.25, "iou": 0.7, "class_agnostic": false, "classes": []},
                         "outputs": {"video": true}, "restart": {"policy": "on_failure", "limit": 5}},
            "progress": {"frame": 1200, "of": 7500}, "ended": null, "seq": 42,
            "updated_at": "2026-01-31T12:00:04.000Z"
        });
        assert_eq!(serde_json::to_value(&scenario).unwrap(), expected);
        let text = serde_json::to_string(&scenario).unwrap();
        assert!(text.starts_with(r#"{"id":"gate","state":"active","run":"#), "in the order of design.md: {text}");
        assert!(text.contains(r#""confidence":0.25,"iou":0.7,"#), "without noise: {text}");
    }

    #[test]
    fn what_a_runner_can_not_report_is_shown_as_an_error() {
        let trouble = Progress { trouble: Some("can't store results".into()), ..progress() };
        let scenario = Scenario::new(&"gate".parse().unwrap(), &fold(&active()), 42, Some(&trouble)).unwrap();
        assert_eq!(serde_json::to_value(&scenario).unwrap()["health"]["error"], "can't store results");
    }

    #[test]
    fn after_its_run_the_log_has_the_numbers() {
        let mut events = active();
        events.push(EventData::SourceEnded { run: RUN, frames: 250, of: Some(250), error: None });
        events.push(EventData::Deactivated { run: RUN, reason: EndReason::Completed, frames: None, error: None });
        let scenario = Scenario::new(&"gate".parse().unwrap(), &fold(&events), 6, None).unwrap();
        let shown = serde_json::to_value(&scenario).unwrap();
        assert_eq!(shown["state"], "inactive");
        assert_eq!(shown["progress"], json!({"frame": 250, "of": 250}));
        assert_eq!(shown["health"]["frames"], 250);
        assert_eq!(shown["health"]["analysed_fps"], json!(null));
        assert_eq!(shown["ended"], json!({"reason": "completed", "error": null, "at": "2026-01-31T12:00:06.000Z"}));
    }

    #[test]
    fn state_names_are_the_domains() {
        let state = fold(&active());
        for n in 1..=state.seq {
            let events = active();
            let state = fold(&events[..n as usize]);
            assert_eq!(serde_json::to_value(StateName::from(&state.phase)).unwrap(), state.phase.name());
        }
    }

    #[test]
    fn a_deleted_one_is_not_shown() {
        let mut events = active();
        events.push(EventData::ScenarioDeleted {});
        assert_eq!(Scenario::new(&"gate".parse().unwrap(), &fold(&events), 5, None), None);
    }
}
