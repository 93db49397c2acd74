//! Commands: what a user asks for. Imperative; each is answered by exactly one event.

use serde::{Deserialize, Serialize};

use crate::{id::CommandId, settings::Settings};

/// What is asked of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    Create { settings: Settings },
    Reconfigure { settings: Settings },
    Start,
    Stop,
    Delete,
}

/// A command without its content, for refusals and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    Create,
    Reconfigure,
    Start,
    Stop,
    Delete,
}

impl Command {
    pub const fn kind(&self) -> CommandKind {
        match self {
            Self::Create { .. } => CommandKind::Create,
            Self::Reconfigure { .. } => CommandKind::Reconfigure,
            Self::Start => CommandKind::Start,
            Self::Stop => CommandKind::Stop,
            Self::Delete => CommandKind::Delete,
        }
    }
}

/// A message on `kadr.in.{scenario}.cmd.{key}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandEnvelope {
    pub id: CommandId,
    /// Who asked, as the log will name it.
    pub actor: String,
    pub command: Command,
}
