//! Writing: events and the checkpoint in one transaction, each event once.

use std::collections::HashMap;

use kadr_shared::{
    domain::{Event, EventData, Refusal, State},
    id::ScenarioId,
};
use sqlx::{Sqlite, Transaction};

use super::{ReadModel, open::is_damage, signed, unsigned};

/// Up to where which log has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Which log: see [`ReadModel::begin_anew`].
    pub(crate) stream: String,
    pub(crate) seq: u64,
}

/// An event with its parsed data.
#[derive(Debug, Clone)]
pub(crate) struct Projected {
    pub(crate) event: Event,
    pub(crate) data: EventData,
}

/// Something could not be written; the transaction is undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("can't write to {file}: see that the disk has room")]
    Write { file: String, source: sqlx::Error },
    #[error("{file} is damaged: restart the API, it is rebuilt from the log then")]
    Damaged { file: String, source: sqlx::Error },
    #[error("the state of scenario {scenario} can't be stored or read")]
    State { scenario: ScenarioId, source: serde_json::Error },
    #[error("event {seq} can't be written as JSON")]
    Line { seq: u64, source: serde_json::Error },
}

/// States are folded by code: those of another version may differ, so they are folded again.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl ReadModel {
    /// The checkpoint; that of no log at all if another version wrote the tables.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint, WriteError> {
        let (stream, version, seq): (String, String, i64) =
            sqlx::query_as("SELECT stream, version, seq FROM checkpoint")
                .fetch_one(&self.writer)
                .await
                .map_err(self.write_error())?;
        let stream = if version == VERSION { stream } else { String::new() };
        Ok(Checkpoint { stream, seq: unsigned(seq) })
    }

    /// Throws everything away, to follow the log that `stream` stands for from its beginning.
    pub(crate) async fn begin_anew(&self, stream: &str) -> Result<(), WriteError> {
        let mut tx = self.begin().await?;
        for statement in ["DELETE FROM scenarios", "DELETE FROM events", "DELETE FROM commands"] {
            sqlx::query(statement).execute(&mut *tx).await.map_err(self.write_error())?;
        }
        sqlx::query("UPDATE checkpoint SET stream = $1, version = $2, seq = 0")
            .bind(stream)
            .bind(VERSION)
            .execute(&mut *tx)
            .await
            .map_err(self.write_error())?;
        tx.commit().await.map_err(self.write_error())
    }

    /// Takes events in, in the order of the log; those at or below the checkpoint are there already.
    pub(crate) async fn apply(&self, batch: &[Projected]) -> Result<(), WriteError> {
        let mut tx = self.begin().await?;
        let at: i64 =
            sqlx::query_scalar("SELECT seq FROM checkpoint").fetch_one(&mut *tx).await.map_err(self.write_error())?;
        let at = unsigned(at);
        let mut states: HashMap<ScenarioId, State> = HashMap::new();
        let mut last = at;
        for Projected { event, data } in batch.iter().filter(|p| p.event.seq > at) {
            let state = match states.remove(&event.scenario) {
                Some(state) => state,
                None => self.state(&mut tx, &event.scenario).await?,
            };
            states.insert(event.scenario.clone(), state.evolve(event.seq, event.time, &event.cause, data));
            self.add_event(&mut tx, event).await?;
            self.add_outcome(&mut tx, event, data).await?;
            last = event.seq;
        }
        for (scenario, state) in states {
            let json = serde_json::to_string(&state)
                .map_err(|source| WriteError::State { scenario: scenario.clone(), source })?;
            sqlx::query(
                "INSERT INTO scenarios (id, present, state) VALUES ($1, $2, $3) \
                 ON CONFLICT (id) DO UPDATE SET present = excluded.present, state = excluded.state",
            )
            .bind(scenario.as_str())
            .bind(state.exists())
            .bind(json)
            .execute(&mut *tx)
            .await
            .map_err(self.write_error())?;
        }
        sqlx::query("UPDATE checkpoint SET seq = $1 WHERE seq < $1")
            .bind(signed(last))
            .execute(&mut *tx)
            .await
            .map_err(self.write_error())?;
        tx.commit().await.map_err(self.write_error())
    }

    /// The write lock is taken at once: a transaction that begins by reading could not always get it later.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, WriteError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(self.write_error())
    }

    async fn state(&self, tx: &mut Transaction<'static, Sqlite>, scenario: &ScenarioId) -> Result<State, WriteError> {
        let json: Option<String> = sqlx::query_scalar("SELECT state FROM scenarios WHERE id = $1")
            .bind(scenario.as_str())
            .fetch_optional(&mut **tx)
            .await
            .map_err(self.write_error())?;
        match json {
            Some(json) => {
                serde_json::from_str(&json).map_err(|source| WriteError::State { scenario: scenario.clone(), source })
            }
            None => Ok(State::default()),
        }
    }

    async fn add_event(&self, tx: &mut Transaction<'static, Sqlite>, event: &Event) -> Result<(), WriteError> {
        let line = serde_json::to_string(event).map_err(|source| WriteError::Line { seq: event.seq, source })?;
        sqlx::query("INSERT INTO events (seq, scenario, line) VALUES ($1, $2, $3)")
            .bind(signed(event.seq))
            .bind(event.scenario.as_str())
            .bind(line)
            .execute(&mut **tx)
            .await
            .map_err(self.write_error())?;
        Ok(())
    }

    async fn add_outcome(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        event: &Event,
        data: &EventData,
    ) -> Result<(), WriteError> {
        let (Some(input), Some(refusal)) = (event.cause.input, outcome_in(data)) else { return Ok(()) };
        // A key that was used again after the inbox had forgotten it has a later input. Of one input only the first
        // event answers.
        sqlx::query(
            "INSERT INTO commands (scenario, key, input, seq, refusal) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (scenario, key) DO UPDATE \
             SET input = excluded.input, seq = excluded.seq, refusal = excluded.refusal \
             WHERE commands.input < excluded.input",
        )
        .bind(event.scenario.as_str())
        .bind(&event.cause.id)
        .bind(signed(input))
        .bind(signed(event.seq))
        .bind(refusal.map(refusal_name))
        .execute(&mut **tx)
        .await
        .map_err(self.write_error())?;
        Ok(())
    }

    fn write_error(&self) -> impl Fn(sqlx::Error) -> WriteError {
        let file = self.file.display().to_string();
        move |source| {
            let file = file.clone();
            if is_damage(&source) { WriteError::Damaged { file, source } } else { WriteError::Write { file, source } }
        }
    }
}

/// Whether an event answers a command, and how: `Some(None)` is a yes. Facts have causes too, but other events.
const fn outcome_in(data: &EventData) -> Option<Option<Refusal>> {
    match data {
        EventData::ScenarioCreated { .. }
        | EventData::ScenarioReconfigured { .. }
        | EventData::ScenarioDeleted {}
        | EventData::StartRequested { .. }
        | EventData::StopRequested { .. } => Some(None),
        EventData::CommandRefused { reason, .. } => Some(Some(*reason)),
        EventData::RunnerAssigned { .. }
        | EventData::Activated { .. }
        | EventData::SourceInterrupted { .. }
        | EventData::SourceResumed { .. }
        | EventData::SourceEnded { .. }
        | EventData::AttemptFailed { .. }
        | EventData::RunnerLeft { .. }
        | EventData::RunFailed { .. }
        | EventData::ShutdownAcknowledged { .. }
        | EventData::Deactivated { .. } => None,
    }
}

/// The name a refusal has in events.
pub(crate) const fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound => "not_found",
        Refusal::AlreadyExists => "already_exists",
        Refusal::AlreadyRunning => "already_running",
        Refusal::NotRunning => "not_running",
        Refusal::ShuttingDown => "shutting_down",
        Refusal::StillRunning => "still_running",
    }
}
