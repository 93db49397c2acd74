//! Facts: what a runner saw or did. They ask for a decision, but the orchestrator may find them too old to matter.

use serde::{Deserialize, Serialize};

use crate::id::{RunId, RunnerId};

/// What a runner reports. All but `claimed` carry the fence: the sequence of the `runner_assigned` it works under.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fact {
    /// Would run the start with this sequence in the log.
    Claimed { start: u64 },
    /// The first result of this attempt is stored.
    Streaming { fence: u64 },
    /// No frames or no results come; it goes on trying.
    Interrupted { fence: u64, kind: InterruptionKind, error: String },
    /// They come again.
    Resumed { fence: u64 },
    /// The source has ended by itself; `error` tells what was missing at its end, if anything.
    Ended { fence: u64, frames: u64, of: Option<u64>, error: Option<String> },
    /// The attempt can't go on; `retry`: a later one might.
    Failed { fence: u64, error: String, retry: bool },
    /// The runner itself is to stop: another one shall go on. No failure.
    Left { fence: u64 },
    /// Saw the shutdown, has stopped reading the source.
    Stopping { fence: u64 },
    /// Holds nothing of the scenario any more.
    Released { fence: u64, frames: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterruptionKind {
    /// The source gives no frames.
    Source,
    /// Nobody answers frames.
    Inference,
}

impl Fact {
    /// The fence; for a claim, the start it names. Together with the runner and the kind it tells one fact from another.
    pub const fn fence(&self) -> u64 {
        match self {
            Self::Claimed { start } => *start,
            Self::Streaming { fence }
            | Self::Interrupted { fence, .. }
            | Self::Resumed { fence }
            | Self::Ended { fence, .. }
            | Self::Failed { fence, .. }
            | Self::Left { fence }
            | Self::Stopping { fence }
            | Self::Released { fence, .. } => *fence,
        }
    }

    /// The fact's name, as in its JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "claimed",
            Self::Streaming { .. } => "streaming",
            Self::Interrupted { .. } => "interrupted",
            Self::Resumed { .. } => "resumed",
            Self::Ended { .. } => "ended",
            Self::Failed { .. } => "failed",
            Self::Left { .. } => "left",
            Self::Stopping { .. } => "stopping",
            Self::Released { .. } => "released",
        }
    }
}

/// A message on `kadr.in.{scenario}.run.{run}.{n}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactEnvelope {
    /// The last token of its subject: `{fence}-{name}-{count}-{runner}`. Sending a fact twice stores it once.
    pub id: String,
    pub run: RunId,
    pub runner: RunnerId,
    pub fact: Fact,
}
