//! Reading: each answer from one statement, so that it is of one moment and says of which.

use kadr_shared::{
    domain::{Event, Refusal, State},
    id::{CommandId, ScenarioId},
};
use serde::de::{DeserializeOwned, IntoDeserializer, value::StrDeserializer};

use super::{ReadModel, signed, unsigned};

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
    #[error("a row of the {what} can't be understood")]
    Row { what: &'static str, source: serde_json::Error },
}

const SCENARIOS: &str = "scenarios";
const EVENTS: &str = "events";
const OUTCOMES: &str = "commands' outcomes";

impl ReadModel {
    /// A scenario that exists.
    pub(crate) async fn scenario(&self, id: &ScenarioId) -> Result<Snapshot<Option<State>>, ReadError> {
        let (seq, state): (i64, Option<String>) =
            sqlx::query_as("SELECT c.seq, s.state FROM checkpoint c LEFT JOIN scenarios s ON s.id = $1 AND s.present")
                .bind(id.as_str())
                .fetch_one(&self.readers)
                .await
                .map_err(|source| ReadError::Read { what: SCENARIOS, source })?;
        Ok(Snapshot { seq: unsigned(seq), found: state.map(|json| parse(SCENARIOS, &json)).transpose()? })
    }

    /// At most `limit` scenarios that exist, in the order of their ids, after `after`.
    pub(crate) async fn scenarios(
        &self,
        after: Option<&ScenarioId>,
        limit: u32,
    ) -> Result<Snapshot<Vec<(ScenarioId, State)>>, ReadError> {
        // Without any the checkpoint's row comes alone.
        let rows: Vec<(i64, Option<String>, Option<String>)> = sqlx::query_as(
            "SELECT c.seq, s.id, s.state FROM checkpoint c LEFT JOIN scenarios s ON s.present AND s.id > $1 \
             ORDER BY s.id LIMIT $2",
        )
        .bind(after.map_or("", ScenarioId::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(|source| ReadError::Read { what: SCENARIOS, source })?;
        let seq = rows.first().map_or(0, |(seq, ..)| unsigned(*seq));
        let found = rows
            .into_iter()
            .filter_map(|(_, id, state)| Some((id?, state?)))
            .map(|(id, state)| Ok((from_name(SCENARIOS, &id)?, parse(SCENARIOS, &state)?)))
            .collect::<Result<_, ReadError>>()?;
        Ok(Snapshot { seq, found })
    }

    /// At most `limit` of a scenario's events from a sequence on.
    pub(crate) async fn events(&self, id: &ScenarioId, from: u64, limit: u32) -> Result<Vec<Event>, ReadError> {
        let lines: Vec<String> =
            sqlx::query_scalar("SELECT line FROM events WHERE scenario = $1 AND seq >= $2 ORDER BY seq LIMIT $3")
                .bind(id.as_str())
                .bind(signed(from))
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await
                .map_err(|source| ReadError::Read { what: EVENTS, source })?;
        lines.iter().map(|line| parse(EVENTS, line)).collect()
    }

    /// What became of the command with this key, if it was stored at `input` or later in the inbox.
    pub(crate) async fn outcome(
        &self,
        id: &ScenarioId,
        key: &CommandId,
        input: u64,
    ) -> Result<Option<Outcome>, ReadError> {
        let row: Option<(i64, Option<String>)> =
            sqlx::query_as("SELECT seq, refusal FROM commands WHERE scenario = $1 AND key = $2 AND input >= $3")
                .bind(id.as_str())
                .bind(key.as_str())
                .bind(signed(input))
                .fetch_optional(&self.readers)
                .await
                .map_err(|source| ReadError::Read { what: OUTCOMES, source })?;
        row.map(|(seq, refusal)| {
            let refusal = refusal.map(|name| from_name(OUTCOMES, &name)).transpose()?;
            Ok(Outcome { seq: unsigned(seq), refusal })
        })
        .transpose()
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, json: &str) -> Result<T, ReadError> {
    serde_json::from_str(json).map_err(|source| ReadError::Row { what, source })
}

/// A value whose JSON is a plain string, from that string.
fn from_name<T: DeserializeOwned>(what: &'static str, name: &str) -> Result<T, ReadError> {
    let deserializer: StrDeserializer<'_, serde_json::Error> = name.into_deserializer();
    T::deserialize(deserializer).map_err(|source| ReadError::Row { what, source })
}
