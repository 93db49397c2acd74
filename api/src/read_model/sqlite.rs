//! The tables in a file: SQLite, for one API. A file that can't be used is moved aside, because all of it can be rebuilt.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use kadr_shared::telemetry::chain;
use sqlx::{
    ConnectOptions, Connection as _, Executor, Sqlite, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::warn;

use super::{
    OpenError,
    database::{Database, Row, Transaction, Value, bound},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);
/// How long a request waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(3);
const READERS: u32 = 4;
/// Pages of the write-ahead log until they go into the file (32 MiB): each time costs two flushes of the disk.
const WAL_PAGES: &str = "8192";
/// The writer's pages in memory (64 MiB, in negative KiB): the indexes of a long log stay there.
const CACHE: &str = "-65536";

/// What SQLite keeps beside a file.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// Who else may use the file meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// An API's.
    Shared,
    /// A rebuild's: what is in the file is thrown away.
    Alone,
}

/// The file, open.
#[derive(Debug)]
pub(super) struct SqliteTables {
    /// The one that writes, while it does not.
    writer: Arc<Mutex<Option<SqliteConnection>>>,
    writing: SqliteConnectOptions,
    readers: SqlitePool,
    file: PathBuf,
    /// Held as long as the file is in use; the system lets go of it with the process.
    _lock: Arc<File>,
}

impl SqliteTables {
    /// Opens `file`, or makes it. One that is damaged or of another version is moved aside and begun anew.
    pub(super) async fn open(file: &Path, usage: Use) -> Result<Self, OpenError> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|source| OpenError::Folder { path: folder.to_owned(), source })?;
        }
        let lock = Arc::new(lock(file, usage)?);
        if usage == Use::Alone {
            remove(file).await?;
        }
        match Self::try_open(file, &lock).await {
            Err(error) if is_in_the_file(&error) => {
                warn!(file = %file.display(), error = %chain(&error), "the API's tables can't be used; they are moved to *.broken and rebuilt from the log");
                move_aside(file).await?;
                Self::try_open(file, &lock).await
            }
            other => other,
        }
    }

    async fn try_open(file: &Path, lock: &Arc<File>) -> Result<Self, OpenError> {
        let name = || file.display().to_string();
        let failed = |source| OpenError::Open { database: name(), advice: ADVICE, source };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL a power cut may lose the last transactions, never consistency; the log has them.
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", WAL_PAGES)
            .busy_timeout(BUSY)
            // They are long, and their values are not for a log.
            .disable_statement_logging();
        let writing = options.clone().pragma("cache_size", CACHE);
        let mut writer = SqliteConnection::connect_with(&writing).await.map_err(failed)?;
        let checked = async {
            check(&mut writer, file).await?;
            // Not `run`: its bounds are such that a future with it is not `Send` for the compiler.
            MIGRATIONS.run_direct(None, &mut writer, false).await.map_err(|source| OpenError::Migrate {
                database: name(),
                advice: ADVICE,
                source,
            })?;
            // The readers come last: they can't make the file.
            let pool = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(ACQUIRE);
            pool.connect_with(options.read_only(true).create_if_missing(false)).await.map_err(failed)
        };
        match checked.await {
            Ok(readers) => {
                let writer = Arc::new(Mutex::new(Some(writer)));
                Ok(Self { writer, writing, readers, file: file.to_owned(), _lock: lock.clone() })
            }
            Err(error) => {
                // It must be gone before the file is moved.
                let _ = writer.close().await;
                Err(error)
            }
        }
    }
}

const ADVICE: &str = "see that the disk has room and that the file is writable";

impl Database for SqliteTables {
    /// Opening has made them.
    fn prepare(&self) -> BoxFuture<'_, Result<(), OpenError>> {
        async { Ok(()) }.boxed()
    }

    fn read(&self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, sqlx::Error>> {
        async move { Ok(rows(bound::<Sqlite>(sql, values).fetch_all(&self.readers).await?)) }.boxed()
    }

    /// The write lock is taken at once: a transaction that begins by reading could not always get it later.
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>, sqlx::Error>> {
        async move {
            let mut home = self.writer.clone().lock_owned().await;
            let mut connection = match home.take() {
                Some(connection) => connection,
                None => SqliteConnection::connect_with(&self.writing).await?,
            };
            connection.execute("BEGIN IMMEDIATE").await?;
            Ok(Box::new(SqliteTransaction { connection, home }) as Box<dyn Transaction>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.readers.close().await;
            if let Some(writer) = self.writer.lock().await.take() {
                // It has nothing open: what it could say would change nothing.
                let _ = writer.close().await;
            }
        }
        .boxed()
    }

    fn emptying(&self) -> &'static [&'static str] {
        &["DELETE FROM scenarios", "DELETE FROM events", "DELETE FROM commands"]
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn advice(&self) -> &'static str {
        ADVICE
    }

    fn is_damage(&self, error: &sqlx::Error) -> bool {
        is_damage(error)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A transaction is its connection: dropped, both end. Not sqlx's own: on a full disk SQLite ends a transaction by itself,
/// and sqlx would go on to believe in it, so that this connection could never begin another one.
struct SqliteTransaction {
    connection: SqliteConnection,
    /// Where the connection goes when all went well.
    home: OwnedMutexGuard<Option<SqliteConnection>>,
}

impl Transaction for SqliteTransaction {
    fn read(&mut self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<Vec<Row>, sqlx::Error>> {
        async move { Ok(rows(bound::<Sqlite>(sql, values).fetch_all(&mut self.connection).await?)) }.boxed()
    }

    fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        async move { bound::<Sqlite>(sql, values).execute(&mut self.connection).await.map(drop) }.boxed()
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), sqlx::Error>> {
        async move {
            let Self { mut connection, mut home } = *self;
            connection.execute("COMMIT").await?;
            *home = Some(connection);
            Ok(())
        }
        .boxed()
    }
}

fn rows(found: Vec<sqlx::sqlite::SqliteRow>) -> Vec<Row> {
    found.into_iter().map(Row::from).collect()
}

async fn check(connection: &mut SqliteConnection, file: &Path) -> Result<(), OpenError> {
    let database = file.display().to_string();
    let finding: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|source| OpenError::Open { database: database.clone(), advice: ADVICE, source })?;
    if finding == "ok" { Ok(()) } else { Err(OpenError::Damaged { database, finding }) }
}

/// Whether the file itself is at fault, so that another one would do.
fn is_in_the_file(error: &OpenError) -> bool {
    match error {
        OpenError::Damaged { .. } => true,
        OpenError::Open { source, .. } => is_damage(source),
        OpenError::Migrate { source, .. } => match source {
            MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => is_damage(e),
            // Made by another version of kadr.
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => true,
            _ => false,
        },
        _ => false,
    }
}

/// `SQLITE_CORRUPT` and `SQLITE_NOTADB`, with their extended codes.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|c| c.parse::<u32>().ok());
    matches!(code.map(|c| c & 0xff), Some(11 | 26))
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Says that the file is in use, to other processes: a rebuild takes it away under nobody's feet. SQLite's own locks
/// are held for moments only.
fn lock(file: &Path, usage: Use) -> Result<File, OpenError> {
    let path = beside(file, ".lock");
    let failed = |source| OpenError::Lock { path: path.clone(), source };
    let lock = File::options().create(true).truncate(false).write(true).read(true).open(&path).map_err(failed)?;
    let taken = match usage {
        Use::Shared => lock.try_lock_shared(),
        Use::Alone => lock.try_lock(),
    };
    match taken {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            file: file.to_owned(),
            by: match usage {
                Use::Shared => "is being rebuilt by `kadr projection rebuild`: wait for its end",
                Use::Alone => "is in use: stop the API (or `kadr up`) that runs on it first",
            },
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

async fn remove(file: &Path) -> Result<(), OpenError> {
    for path in COMPANIONS.map(|suffix| beside(file, suffix)) {
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::MoveAside { file: path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

async fn move_aside(file: &Path) -> Result<(), OpenError> {
    for path in COMPANIONS.map(|suffix| beside(file, suffix)) {
        match tokio::fs::rename(&path, beside(&path, ".broken")).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::MoveAside { file: path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        place::Place,
        read_model::{ReadModel, Use},
    };

    async fn open(file: &Path) -> Result<ReadModel, OpenError> {
        let place: Place = format!("sqlite:{}", file.display()).parse().unwrap();
        ReadModel::open(&place, Use::Shared).await
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        let junk = b"this is no database, it only has its name".repeat(50);
        std::fs::write(&file, &junk).unwrap();
        let model = open(&file).await.unwrap();
        assert_eq!(model.checkpoint().await.unwrap().seq, 0);
        assert_eq!(std::fs::read(folder.path().join("api.sqlite3.broken")).unwrap(), junk);
    }

    #[tokio::test]
    async fn a_damaged_page_is_found_and_the_tables_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        open(&file).await.unwrap().close().await;
        let mut bytes = std::fs::read(&file).unwrap();
        // The first page holds the header and the schema; the others hold the tables.
        bytes[4096..].fill(0xa5);
        std::fs::write(&file, bytes).unwrap();
        let model = open(&file).await.unwrap();
        assert_eq!(model.checkpoint().await.unwrap().seq, 0);
        assert!(folder.path().join("api.sqlite3.broken").exists());
    }

    #[tokio::test]
    async fn another_versions_tables_are_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        let tables = SqliteTables::open(&file, Use::Shared).await.unwrap();
        let mut tx = tables.begin().await.unwrap();
        tx.execute("UPDATE _sqlx_migrations SET checksum = x'00'", Vec::new()).await.unwrap();
        tx.commit().await.unwrap();
        tables.close().await;
        drop(tables);
        open(&file).await.unwrap();
        assert!(folder.path().join("api.sqlite3.broken").exists());
    }

    #[tokio::test]
    async fn a_folder_in_its_place_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        std::fs::create_dir(&file).unwrap();
        let error = open(&file).await.unwrap_err().to_string();
        assert!(error.contains("api.sqlite3"), "{error}");
    }

    #[tokio::test]
    async fn whoever_wants_the_file_alone_is_told_that_it_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new folder/api.sqlite3");
        let (one, two) = (open(&file).await.unwrap(), open(&file).await.unwrap());
        let alone = SqliteTables::open(&file, Use::Alone).await.unwrap_err().to_string();
        assert!(alone.contains("in use") && alone.contains("stop the API"), "{alone}");
        drop((one, two));
        let _alone = SqliteTables::open(&file, Use::Alone).await.unwrap();
        let shared = open(&file).await.unwrap_err().to_string();
        assert!(shared.contains("being rebuilt"), "{shared}");
    }

    #[tokio::test]
    async fn a_file_without_room_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let tables = SqliteTables::open(&folder.path().join("api.sqlite3"), Use::Shared).await.unwrap();
        tables.writer.lock().await.as_mut().unwrap().execute("PRAGMA max_page_count = 1").await.unwrap();
        let mut tx = tables.begin().await.unwrap();
        let line = "x".repeat(100_000);
        let sql = "INSERT INTO events (seq, scenario, line) VALUES ($1, $2, $3)";
        let error = tx.execute(sql, vec![1_i64.into(), "gate".into(), line.into()]).await.unwrap_err();
        assert!(error.to_string().contains("full") && !is_damage(&error), "{error}");
        drop(tx);
        let mut tx = tables.begin().await.unwrap();
        assert!(tx.read("SELECT seq FROM events", Vec::new()).await.unwrap().is_empty(), "it is undone");
        tx.commit().await.unwrap();
    }
}
