//! What a pipeline is given, what it tells on the way, and how it ends. How it gets there is not told here.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kadr_shared::{
    domain::InterruptionKind,
    id::{RunId, ScenarioId},
    secret::SecretKey,
    settings::Settings,
};

use crate::workers::Workers;

/// What a pipeline works on.
pub(crate) struct Job {
    pub(crate) scenario: ScenarioId,
    pub(crate) run: RunId,
    pub(crate) fence: u64,
    pub(crate) settings: Settings,
    /// Where the annotated video goes, if one is wanted.
    pub(crate) video: Option<PathBuf>,
    pub(crate) limits: Limits,
    pub(crate) secret_key: Option<SecretKey>,
    pub(crate) workers: Arc<Workers>,
}

/// How much may be under way, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Frames of a scenario without a result.
    pub inflight: usize,
    /// After this time without a result a frame is sent again, although it seems to be queued. One that is lost is sent
    /// again much sooner.
    pub frame_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // A large model on one slow core takes seconds a frame, and `inflight` of them wait for one another.
        Self { inflight: 4, frame_timeout: Duration::from_secs(30) }
    }
}

/// What a pipeline tells while it runs.
#[derive(Debug)]
pub(crate) enum Report {
    /// The first result of this attempt is stored.
    Streaming,
    Interrupted {
        kind: InterruptionKind,
        error: String,
    },
    Resumed,
}

/// How a pipeline ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The source came to its end; `error` tells what was missing.
    Ended {
        frames: u64,
        of: Option<u64>,
        error: Option<String>,
    },
    Failed {
        error: String,
        retry: bool,
    },
    /// It was told to stop.
    Cancelled,
    /// Somebody else has the scenario.
    Fenced,
}
