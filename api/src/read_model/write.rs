//! Writing: events, states and the checkpoint in one transaction, each event once, whoever else writes too.

use std::{
    collections::{HashMap, HashSet, hash_map},
    sync::LazyLock,
};

use kadr_shared::{
    domain::{Event, EventData, Refusal},
    id::ScenarioId,
};

use super::{
    ReadModel,
    database::{Row, Transaction, Value},
    many::Many,
    states::States,
};

/// Up to where which log has been read, and by which kadr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Which log: the moment of its stream's making.
    pub(crate) stream: String,
    pub(crate) version: String,
    pub(crate) seq: u64,
}

/// An event with its parsed data, and as a line.
#[derive(Debug, Clone)]
pub(crate) struct Projected {
    pub(crate) event: Event,
    pub(crate) data: EventData,
    pub(crate) line: String,
}

/// A stretch of the log without a hole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    /// The sequence before it.
    pub(crate) after: u64,
    /// Its last sequence. Foreign messages have one and are no events.
    pub(crate) last: u64,
    pub(crate) events: Vec<Projected>,
}

/// Something could not be written; the transaction is undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("can't write to {database}: {advice}")]
    Write { database: String, advice: &'static str, source: sqlx::Error },
    #[error("{database} is damaged: restart the API or run `kadr projection rebuild`; the log has all that it held")]
    Damaged { database: String, source: sqlx::Error },
    #[error("the state of scenario {scenario} can't be stored or read")]
    State { scenario: ScenarioId, source: serde_json::Error },
    /// Somebody rebuilds the tables, or has begun them anew for another log or version.
    #[error("somebody else has begun the tables in {database} anew")]
    Moved { database: String },
    #[error(
        "the tables in {database} are kept by kadr {found}, which is newer than this one ({VERSION}): use that one here, or give this one another database"
    )]
    Newer { database: String, found: String },
    #[error(
        "the tables in {database} follow a log that was made later than this NATS server's: give this API another database, or run `kadr projection rebuild` if that one is gone"
    )]
    OtherLog { database: String },
}

/// States are folded by code: those of another version may differ, so they are folded again.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const CHECKPOINT: &str = "SELECT stream, version, seq FROM checkpoint";
const MOVE: &str = "UPDATE checkpoint SET stream = $1, version = $2, seq = $3";

static STATES_OF: LazyLock<Many> = LazyLock::new(|| Many::new("SELECT id, state FROM scenarios WHERE id IN (", 1, ")"));
static ADD_EVENTS: LazyLock<Many> =
    LazyLock::new(|| Many::new("INSERT INTO events (seq, scenario, line) VALUES", 3, ""));
static PUT_STATES: LazyLock<Many> = LazyLock::new(|| {
    Many::new(
        "INSERT INTO scenarios (id, present, state) VALUES",
        3,
        "ON CONFLICT (id) DO UPDATE SET present = excluded.present, state = excluded.state",
    )
});
// A key that was used again after the inbox had forgotten it has a later input.
static PUT_OUTCOMES: LazyLock<Many> = LazyLock::new(|| {
    Many::new(
        "INSERT INTO commands (scenario, key, input, seq, refusal) VALUES",
        5,
        "ON CONFLICT (scenario, key) DO UPDATE \
         SET input = excluded.input, seq = excluded.seq, refusal = excluded.refusal \
         WHERE commands.input < excluded.input",
    )
});

impl ReadModel {
    /// Up to where the tables are now.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint, WriteError> {
        let found = self.database.read(CHECKPOINT, Vec::new()).await.map_err(|e| self.write_error(e))?;
        checkpoint_in(&found).map_err(|e| self.write_error(e))
    }

    fn write_error(&self, source: sqlx::Error) -> WriteError {
        let database = self.database.name();
        if self.database.is_damage(&source) {
            WriteError::Damaged { database, source }
        } else {
            WriteError::Write { database, advice: self.database.advice(), source }
        }
    }
}

fn checkpoint_in(found: &[Row]) -> Result<Checkpoint, sqlx::Error> {
    let row = found.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Checkpoint { stream: row.get(0)?, version: row.get(1)?, seq: row.seq(2)? })
}

/// Writes into the tables. Several may, each in its turn.
#[derive(Debug)]
pub(crate) struct Writer {
    model: ReadModel,
    states: States,
}

impl Writer {
    pub(crate) fn new(model: ReadModel) -> Self {
        Self { model, states: States::default() }
    }

    /// Where to go on in the log that `stream` stands for. Tables of another log or another version are begun anew; so
    /// are those that are known to be ahead of the log (`rewound`). What a newer kadr or a newer log has written into
    /// a database that is shared is left alone: two would begin it anew in turns, for ever.
    pub(crate) async fn claim(&mut self, stream: &str, rewound: bool) -> Result<Claim, WriteError> {
        let (tx, found) = self.begin().await?;
        let (fits, new) = (found.stream == stream && found.version == VERSION, found.stream.is_empty());
        if fits && !rewound {
            return Ok(Claim { seq: found.seq, anew: false });
        }
        let database = || self.model.database.name();
        if self.model.database.is_shared() && !new {
            if number(&found.version) > number(VERSION) {
                return Err(WriteError::Newer { database: database(), found: found.version });
            }
            if found.stream.parse::<i128>().ok() > stream.parse::<i128>().ok() {
                return Err(WriteError::OtherLog { database: database() });
            }
        }
        self.clear(tx, stream).await?;
        Ok(Claim { seq: 0, anew: !new })
    }

    /// Throws everything away, to follow the log that `stream` stands for from its beginning.
    pub(crate) async fn begin_anew(&mut self, stream: &str) -> Result<(), WriteError> {
        let (tx, _) = self.begin().await?;
        self.clear(tx, stream).await
    }

    /// Takes a batch in, but for what is in the tables already; up to where they are then, which may be further.
    pub(crate) async fn apply(&mut self, stream: &str, batch: &Batch) -> Result<u64, WriteError> {
        let (mut tx, at) = self.begin().await?;
        if at.stream != stream || at.version != VERSION || at.seq < batch.after {
            return Err(WriteError::Moved { database: self.model.database.name() });
        }
        if at.seq >= batch.last {
            return Ok(at.seq);
        }
        let new = batch.events.iter().filter(|projected| projected.event.seq > at.seq);
        let new: Vec<&Projected> = new.collect();
        self.states.begin(&at);
        self.load(&mut *tx, &new).await?;
        let states = self.fold(&new)?;
        let failed = |e| self.model.write_error(e);
        ADD_EVENTS.execute(&mut *tx, lines(&new)).await.map_err(failed)?;
        PUT_OUTCOMES.execute(&mut *tx, outcomes(&new)).await.map_err(failed)?;
        PUT_STATES.execute(&mut *tx, states).await.map_err(failed)?;
        let at = Checkpoint { seq: batch.last, ..at };
        put(&mut *tx, &at).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        let seq = at.seq;
        self.states.committed(at);
        Ok(seq)
    }

    /// Takes the lock; the checkpoint that it protects.
    async fn begin(&self) -> Result<(Box<dyn Transaction>, Checkpoint), WriteError> {
        let failed = |e| self.model.write_error(e);
        let mut tx = self.model.database.begin().await.map_err(failed)?;
        let at = checkpoint_in(&tx.read(CHECKPOINT, Vec::new()).await.map_err(failed)?).map_err(failed)?;
        Ok((tx, at))
    }

    async fn clear(&mut self, mut tx: Box<dyn Transaction>, stream: &str) -> Result<(), WriteError> {
        let failed = |e| self.model.write_error(e);
        for statement in self.model.database.emptying() {
            tx.execute(statement, Vec::new()).await.map_err(failed)?;
        }
        let at = Checkpoint { stream: stream.to_owned(), version: VERSION.to_owned(), seq: 0 };
        put(&mut *tx, &at).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        self.states = States::none_yet(at);
        Ok(())
    }

    /// Reads the states that are not remembered.
    async fn load(&mut self, tx: &mut dyn Transaction, new: &[&Projected]) -> Result<(), WriteError> {
        let missing = self.states.missing(new.iter().map(|projected| &projected.event.scenario));
        let failed = |e| self.model.write_error(e);
        let found = STATES_OF.read(tx, missing.iter().map(|id| Value::from(id.as_str())).collect()).await;
        for row in found.map_err(failed)? {
            let (id, json): (String, String) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
            let Some(scenario) = missing.iter().find(|scenario| scenario.as_str() == id) else { continue };
            let state = serde_json::from_str(&json)
                .map_err(|source| WriteError::State { scenario: (*scenario).clone(), source })?;
            self.states.insert((*scenario).clone(), state);
        }
        Ok(())
    }

    /// Folds the events into the states; the rows of those that changed.
    fn fold(&mut self, new: &[&Projected]) -> Result<Vec<Value>, WriteError> {
        let mut changed = HashSet::new();
        for Projected { event, data, .. } in new {
            let state = self.states.take(&event.scenario).evolve(event.seq, event.time, &event.cause, data);
            self.states.insert(event.scenario.clone(), state);
            changed.insert(&event.scenario);
        }
        let mut rows = Vec::with_capacity(3 * changed.len());
        for scenario in changed {
            let Some(state) = self.states.get(scenario) else { continue };
            let json = serde_json::to_string(state)
                .map_err(|source| WriteError::State { scenario: scenario.clone(), source })?;
            rows.extend([scenario.as_str().into(), state.exists().into(), Value::from(json)]);
        }
        Ok(rows)
    }
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) seq: u64,
    /// The tables held something else and were begun anew.
    pub(crate) anew: bool,
}

async fn put(tx: &mut dyn Transaction, at: &Checkpoint) -> Result<(), sqlx::Error> {
    tx.execute(MOVE, vec![at.stream.as_str().into(), at.version.as_str().into(), at.seq.into()]).await
}

fn lines(new: &[&Projected]) -> Vec<Value> {
    let row = |projected: &&Projected| -> [Value; 3] {
        let Projected { event, line, .. } = *projected;
        [event.seq.into(), event.scenario.as_str().into(), line.as_str().into()]
    };
    new.iter().flat_map(row).collect()
}

/// The rows of commands that events answer, one a key: of the latest input, and of one input the first event.
fn outcomes(new: &[&Projected]) -> Vec<Value> {
    let mut found: HashMap<(&ScenarioId, &str), (u64, u64, Option<Refusal>)> = HashMap::new();
    for Projected { event, data, .. } in new {
        let (Some(input), Some(refusal)) = (event.cause.input, outcome_in(data)) else { continue };
        let answer = (input, event.seq, refusal);
        match found.entry((&event.scenario, &event.cause.id)) {
            hash_map::Entry::Vacant(entry) => drop(entry.insert(answer)),
            hash_map::Entry::Occupied(mut entry) if entry.get().0 < input => drop(entry.insert(answer)),
            hash_map::Entry::Occupied(_) => {}
        }
    }
    let row = |((scenario, key), (input, seq, refusal)): ((&ScenarioId, &str), (u64, u64, Option<Refusal>))| {
        let refusal = Value::Text(refusal.map(|refusal| refusal_name(refusal).to_owned()));
        [Value::from(scenario.as_str()), key.into(), input.into(), seq.into(), refusal]
    };
    found.into_iter().flat_map(row).collect()
}

/// A version that can be compared.
fn number(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
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
