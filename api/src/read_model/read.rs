//! Reading: each answer from one statement, so that it is of one moment and says of which.

use std::time::Duration;

use kadr_shared::{
    domain::{Event, Refusal, State},
    id::{CommandId, ScenarioId},
};
use serde::de::{DeserializeOwned, IntoDeserializer, value::StrDeserializer};

use tokio::time::timeout;

use super::{
    ReadModel,
    database::{Row, Value},
};

/// How long an answer may take: longer than a connection is waited for, shorter than a caller waits.
const DEADLINE: Duration = Duration::from_secs(6);

/// What was read, and up to which sequence of the log it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot<T> {
    pub(crate) seq: u64,
    pub(crate) found: T,
}

/// What became of a command: the event that answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) seq: u64,
    pub(crate) refusal: Option<Refusal>,
}

/// Something could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("can't read the {what}")]
    Read { what: &'static str, source: sqlx::Error },
    #[error("can't read the {what} in time")]
    Slow { what: &'static str },
    #[error("a row of the {what} can't be understood")]
    Row { what: &'static str, source: serde_json::Error },
}

const SCENARIOS: &str = "scenarios";
const EVENTS: &str = "events";
const OUTCOMES: &str = "commands' outcomes";

impl ReadModel {
    /// A scenario that exists.
    pub(crate) async fn scenario(&self, id: &ScenarioId) -> Result<Snapshot<Option<State>>, ReadError> {
        let sql = "SELECT c.seq, s.state FROM checkpoint c LEFT JOIN scenarios s ON s.id = $1 AND s.present";
        let rows = self.rows(SCENARIOS, sql, vec![id.as_str().into()]).await?;
        let row = rows.first().ok_or_else(|| read_error(SCENARIOS)(sqlx::Error::RowNotFound))?;
        let state: Option<String> = row.get(1).map_err(read_error(SCENARIOS))?;
        let seq = row.seq(0).map_err(read_error(SCENARIOS))?;
        Ok(Snapshot { seq, found: state.map(|json| parse(SCENARIOS, &json)).transpose()? })
    }

    /// At most `limit` scenarios that exist, in the order of their ids, after `after`.
    pub(crate) async fn scenarios(
        &self,
        after: Option<&ScenarioId>,
        limit: u32,
    ) -> Result<Snapshot<Vec<(ScenarioId, State)>>, ReadError> {
        // Without any the checkpoint's row comes alone.
        let sql = "SELECT c.seq, s.id, s.state FROM checkpoint c LEFT JOIN scenarios s ON s.present AND s.id > $1 \
                   ORDER BY s.id LIMIT $2";
        let values = vec![after.map_or("", ScenarioId::as_str).into(), i64::from(limit).into()];
        let rows = self.rows(SCENARIOS, sql, values).await?;
        let seq = rows.first().map_or(Ok(0), |row| row.seq(0)).map_err(read_error(SCENARIOS))?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let columns = row.get(1).and_then(|id| Ok((id, row.get(2)?)));
            if let (Some(id), Some(state)) = columns.map_err(read_error(SCENARIOS))? {
                let (id, state): (String, String) = (id, state);
                found.push((from_name(SCENARIOS, &id)?, parse(SCENARIOS, &state)?));
            }
        }
        Ok(Snapshot { seq, found })
    }

    /// At most `limit` of a scenario's events from a sequence on.
    pub(crate) async fn events(&self, id: &ScenarioId, from: u64, limit: u32) -> Result<Vec<Event>, ReadError> {
        let sql = "SELECT line FROM events WHERE scenario = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
        let values = vec![id.as_str().into(), from.into(), i64::from(limit).into()];
        let rows = self.rows(EVENTS, sql, values).await?;
        rows.iter().map(|row| parse(EVENTS, &row.get::<String>(0).map_err(read_error(EVENTS))?)).collect()
    }

    /// What became of the command with this key, if it was stored at `input` or later in the inbox.
    pub(crate) async fn outcome(
        &self,
        id: &ScenarioId,
        key: &CommandId,
        input: u64,
    ) -> Result<Option<Outcome>, ReadError> {
        let sql = "SELECT seq, refusal FROM commands WHERE scenario = $1 AND key = $2 AND input >= $3";
        let rows = self.rows(OUTCOMES, sql, vec![id.as_str().into(), key.as_str().into(), input.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let seq = row.seq(0).map_err(read_error(OUTCOMES))?;
        let refusal: Option<String> = row.get(1).map_err(read_error(OUTCOMES))?;
        let refusal = refusal.map(|name| from_name(OUTCOMES, &name)).transpose()?;
        Ok(Some(Outcome { seq, refusal }))
    }

    async fn rows(&self, what: &'static str, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, ReadError> {
        match timeout(DEADLINE, self.database.read(sql, values)).await {
            Ok(found) => found.map_err(read_error(what)),
            Err(_) => Err(ReadError::Slow { what }),
        }
    }
}

fn read_error(what: &'static str) -> impl Fn(sqlx::Error) -> ReadError {
    move |source| ReadError::Read { what, source }
}

fn parse<T: DeserializeOwned>(what: &'static str, json: &str) -> Result<T, ReadError> {
    serde_json::from_str(json).map_err(|source| ReadError::Row { what, source })
}

/// A value whose JSON is a plain string, from that string.
fn from_name<T: DeserializeOwned>(what: &'static str, name: &str) -> Result<T, ReadError> {
    let deserializer: StrDeserializer<'_, serde_json::Error> = name.into_deserializer();
    T::deserialize(deserializer).map_err(|source| ReadError::Row { what, source })
}
