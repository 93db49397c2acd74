//! What the read model asks of a database: the one trait that SQLite and PostgreSQL implement.
//!
//! Statements are the same text for both (`$1`, `ON CONFLICT`), so they stand once, in `read` and `write`. What differs
//! is here: opening, locking, emptying, and what errors mean. The trait is used as `dyn`: which database it is, is known
//! when the program runs, and nothing above is generic over it.

use std::fmt;

use futures::future::BoxFuture;
use sqlx::{Decode, Encode, Postgres, Sqlite, Type, postgres::PgRow, query::Query, sqlite::SqliteRow};

use super::OpenError;

/// A database with the tables.
pub(super) trait Database: fmt::Debug + Send + Sync {
    /// Makes the tables if they are not there. Cheap if they are.
    fn prepare(&self) -> BoxFuture<'_, Result<(), OpenError>>;

    /// The rows of one statement: all of them are of one moment.
    fn read(&self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, sqlx::Error>>;

    /// Begins to write. Nobody else writes until the end: the lock is taken here.
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>, sqlx::Error>>;

    /// Ends after what is under way.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// The statements that empty the tables, but for the checkpoint.
    fn emptying(&self) -> &'static [&'static str];

    /// Where it is, for people: without a password.
    fn name(&self) -> String;

    /// What to do when it takes nothing.
    fn advice(&self) -> &'static str;

    /// Whether the error says that the tables themselves are broken.
    fn is_damage(&self, error: &sqlx::Error) -> bool;

    /// Whether other processes may keep these tables too, of another version or another log.
    fn is_shared(&self) -> bool;
}

/// A write under way. Dropped, it is undone.
pub(super) trait Transaction: Send {
    fn read(&mut self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, sqlx::Error>>;

    fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), sqlx::Error>>;
}

/// A value of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(i64),
    Flag(bool),
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    /// SQL has signed numbers only; a sequence never comes near the end of them.
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

/// The statement with its values, for either driver.
pub(super) fn bound<'q, DB>(sql: &'static str, values: Vec<Value>) -> Query<'q, DB, DB::Arguments>
where
    DB: sqlx::Database,
    i64: Encode<'q, DB> + Type<DB>,
    bool: Encode<'q, DB> + Type<DB>,
    Option<String>: Encode<'q, DB> + Type<DB>,
{
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Number(number) => query.bind(number),
        Value::Flag(flag) => query.bind(flag),
        Value::Text(text) => query.bind(text),
    })
}

/// A row of either driver.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn get<T>(&self, column: usize) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => sqlx::Row::try_get(row, column),
            Self::Postgres(row) => sqlx::Row::try_get(row, column),
        }
    }

    /// A sequence.
    pub(super) fn seq(&self, column: usize) -> Result<u64, sqlx::Error> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(0))
    }
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}
