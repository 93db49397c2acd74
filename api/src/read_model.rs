//! The tables that answers come from: a projection of the log in SQLite.
//!
//! Nothing here knows NATS or HTTP. The statements are such that PostgreSQL takes them too. There is one writer; readers
//! see what is committed. Every answer says up to which sequence of the log it is, from the same snapshot.

mod open;
mod read;
mod write;

use std::path::PathBuf;

pub(crate) use open::OpenError;
pub(crate) use read::{Outcome, ReadError};
use sqlx::SqlitePool;
pub(crate) use write::{Checkpoint, Projected, WriteError};

/// The tables.
#[derive(Debug, Clone)]
pub(crate) struct ReadModel {
    writer: SqlitePool,
    readers: SqlitePool,
    file: PathBuf,
}

impl ReadModel {
    /// Closes the file, after what is under way.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// SQL has signed numbers only; a sequence never comes near the end of them.
fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}
