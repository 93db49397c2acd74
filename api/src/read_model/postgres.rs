//! The tables in PostgreSQL: several APIs share them, in a schema of their own. Whoever writes locks the checkpoint's
//! row first, so exactly one writes at a time, and each sees what the others have committed.
//!
//! PostgreSQL may be away, at the start too: nothing connects before it has to.

use std::{fmt, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use sqlx::{
    ConnectOptions, Connection as _, Executor, PgConnection, Postgres,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgRow},
};
use tokio::time::timeout;
use tracing::warn;

use super::{
    OpenError,
    connections::{Connections, Lease},
    database::{Database, Row, Transaction, Value, bound},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// What the server does for us on every connection, whatever becomes of this process: a writer that hangs in the middle
/// of a transaction lets go of its lock, and nothing runs for ever. Commits wait for the disk, whatever the server's
/// default is: an API that has said how far the tables are must not be wrong when the server was killed.
const SESSION: [(&str, &str); 5] = [
    ("search_path", SCHEMA),
    ("lock_timeout", "10s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("synchronous_commit", "on"),
];
const SCHEMA: &str = "kadr";
/// Making the tables may wait for another API that does so.
const PREPARE_DEADLINE: Duration = Duration::from_secs(20);
const READERS: usize = 4;
/// For the lock under which the tables are made: "kadr".
const LOCK: i64 = 0x6b61_6472;

const ADVICE: &str = "see that PostgreSQL runs there and takes kadr's connections";

/// A database on a server.
pub(super) struct PostgresTables {
    writer: Connections,
    readers: Connections,
    options: PgConnectOptions,
    name: String,
}

impl fmt::Debug for PostgresTables {
    /// The options hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTables").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PostgresTables {
    pub(super) fn new(options: PgConnectOptions, name: String) -> Self {
        let options = options.application_name("kadr").options(SESSION).disable_statement_logging();
        Self {
            writer: Connections::new(options.clone(), 1),
            readers: Connections::new(options.clone(), READERS),
            options,
            name,
        }
    }

    async fn make(&self) -> Result<(), OpenError> {
        let failed = |source| OpenError::Open { database: self.name.clone(), advice: ADVICE, source };
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(failed)?;
        // Held until this connection ends: APIs that start together make the tables once.
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut connection).await.map_err(failed)?;
        let made = match self.migrate(&mut connection).await {
            // Tables of this number with other columns: an earlier kadr's. The log has what they hold.
            Err(OpenError::Migrate { source: MigrateError::VersionMismatch(_), .. }) => {
                warn!(database = %self.name, "the tables are of another kadr: they are made anew and rebuilt from the log");
                connection.execute("DROP SCHEMA kadr CASCADE").await.map_err(failed)?;
                self.migrate(&mut connection).await
            }
            other => other,
        };
        connection.close().await.map_err(failed)?;
        made
    }

    async fn migrate(&self, connection: &mut PgConnection) -> Result<(), OpenError> {
        let failed = |source| OpenError::Open { database: self.name.clone(), advice: ADVICE, source };
        // Asked first: to make one needs a right that a user may lack where the schema was made for it.
        let there: bool = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(SCHEMA)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        if !there {
            connection.execute("CREATE SCHEMA kadr").await.map_err(failed)?;
        }
        // Not `run`: its bounds are such that a future with it is not `Send` for the compiler.
        MIGRATIONS.run_direct(None, connection, false).await.map_err(|source| match source {
            MigrateError::VersionMissing(_) => OpenError::Newer { database: self.name.clone() },
            source => OpenError::Migrate { database: self.name.clone(), advice: ADVICE, source },
        })
    }
}

impl Database for PostgresTables {
    fn prepare(&self) -> BoxFuture<'_, Result<(), OpenError>> {
        async move {
            let slow = |_| OpenError::Slow { database: self.name.clone(), advice: ADVICE };
            timeout(PREPARE_DEADLINE, self.make()).await.map_err(slow)?
        }
        .boxed()
    }

    fn read(&self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, sqlx::Error>> {
        async move {
            let mut lease = self.readers.lease().await?;
            let found = match bound::<Postgres>(sql, values.clone()).fetch_all(lease.connection()).await {
                // It ended while it was idle: that the server was restarted is no reason to fail now.
                Err(error) if lease.is_used() && is_broken(&error) => {
                    lease.renew().await?;
                    bound::<Postgres>(sql, values).fetch_all(lease.connection()).await
                }
                other => other,
            };
            let found = found?;
            lease.give_back();
            Ok(rows(found))
        }
        .boxed()
    }

    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>, sqlx::Error>> {
        async move {
            let mut lease = self.writer.lease().await?;
            if let Err(error) = lease.connection().execute("BEGIN").await {
                if !(lease.is_used() && is_broken(&error)) {
                    return Err(error);
                }
                lease.renew().await?;
                lease.connection().execute("BEGIN").await?;
            }
            lease.connection().execute("SELECT 1 FROM checkpoint FOR UPDATE").await?;
            Ok(Box::new(PostgresTransaction(lease)) as Box<dyn Transaction>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.readers.close().await;
            self.writer.close().await;
        }
        .boxed()
    }

    fn emptying(&self) -> &'static [&'static str] {
        &["TRUNCATE scenarios, events, commands"]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn advice(&self) -> &'static str {
        ADVICE
    }

    /// `data_corrupted` and `index_corrupted`.
    fn is_damage(&self, error: &sqlx::Error) -> bool {
        matches!(code(error).as_deref(), Some("XX001" | "XX002"))
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// A transaction is its connection: dropped, both end, and the server undoes what was done.
struct PostgresTransaction(Lease);

impl Transaction for PostgresTransaction {
    fn read(&mut self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, sqlx::Error>> {
        async move { Ok(rows(bound::<Postgres>(sql, values).fetch_all(self.0.connection()).await?)) }.boxed()
    }

    fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        async move { bound::<Postgres>(sql, values).execute(self.0.connection()).await.map(drop) }.boxed()
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<(), sqlx::Error>> {
        async move {
            self.0.connection().execute("COMMIT").await?;
            self.0.give_back();
            Ok(())
        }
        .boxed()
    }
}

fn rows(found: Vec<PgRow>) -> Vec<Row> {
    found.into_iter().map(Row::from).collect()
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned())
}

/// Whether the connection has ended: `admin_shutdown`, `crash_shutdown`, `idle_session_timeout`, or no word at all.
fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_))
        || matches!(code(error).as_deref(), Some("57P01" | "57P02" | "57P05"))
}
