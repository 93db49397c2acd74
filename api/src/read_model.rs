//! The tables that answers come from: a projection of the log, in SQLite or in PostgreSQL.
//!
//! Nothing here knows NATS or HTTP. Only one writes at a time; readers see what is committed. Every answer says up to
//! which sequence of the log it is, from the same snapshot.
//!
//! | module | |
//! |---|---|
//! | `database` | the one trait that a database implements, and the statements' values |
//! | `sqlite` | the tables in a file, for one API |
//! | `postgres`, `connections` | the tables on a server, which APIs share |
//! | `read` | answers |
//! | `write` | events, states and the checkpoint in one transaction |
//! | `states` | folded states that need not be read again |
//! | `many` | statements for many rows at once |

mod connections;
mod database;
mod many;
mod postgres;
mod read;
mod sqlite;
mod states;
#[cfg(test)]
mod tests;
mod write;

use std::{path::PathBuf, sync::Arc};

use sqlx::migrate::MigrateError;

use self::{database::Database, postgres::PostgresTables, sqlite::SqliteTables};
use crate::place::{Place, Where};

pub(crate) use read::{Outcome, ReadError};
pub(crate) use sqlite::Use;
pub(crate) use write::{Batch, Projected, WriteError, Writer};

/// The tables.
#[derive(Debug, Clone)]
pub(crate) struct ReadModel {
    database: Arc<dyn Database>,
}

/// Why the tables can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't open {database}: {advice}")]
    Open { database: String, advice: &'static str, source: sqlx::Error },
    #[error("can't make the tables in {database}: {advice}")]
    Migrate { database: String, advice: &'static str, source: MigrateError },
    #[error("{database} does not answer in time: {advice}")]
    Slow { database: String, advice: &'static str },
    #[error("the tables in {database} are of a newer kadr: use that one here, or give this one another database")]
    Newer { database: String },
    #[error("{database} is damaged: {finding}")]
    Damaged { database: String, finding: String },
    #[error("can't use the folder {path} for the API's tables: make it writable, or give another one by --data")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{file} {by}")]
    InUse { file: PathBuf, by: &'static str },
    #[error("can't lock {path}: see that its folder is writable")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("can't move {file} out of the way: delete it, it is rebuilt from the log")]
    MoveAside { file: PathBuf, source: std::io::Error },
}

impl ReadModel {
    /// Opens the tables. A server is not asked yet: it may be away, and [`prepare`](Self::prepare) tells.
    pub(crate) async fn open(place: &Place, usage: Use) -> Result<Self, OpenError> {
        let database: Arc<dyn Database> = match place.0.clone() {
            Where::Sqlite(file) => Arc::new(SqliteTables::open(&file, usage).await?),
            Where::Postgres(options) => Arc::new(PostgresTables::new(*options, place.to_string())),
        };
        Ok(Self { database })
    }

    /// Makes the tables if they are not there.
    pub(crate) async fn prepare(&self) -> Result<(), OpenError> {
        self.database.prepare().await
    }

    /// Closes them, after what is under way.
    pub(crate) async fn close(&self) {
        self.database.close().await;
    }
}
