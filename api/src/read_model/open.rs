//! Opening the tables; a file that can't be used is moved aside, because all of it can be rebuilt.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kadr_shared::telemetry::chain;
use sqlx::{
    SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::warn;

use super::ReadModel;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);
/// How long a request waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(3);
const READERS: u32 = 4;

/// What SQLite keeps beside a file.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// Why the tables can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("can't open {file}: see that the disk has room and that the file is writable")]
    Open { file: PathBuf, source: sqlx::Error },
    #[error("can't make the tables in {file}: see that the disk has room and that the file is writable")]
    Migrate { file: PathBuf, source: MigrateError },
    #[error("{file} is damaged: {finding}")]
    Damaged { file: PathBuf, finding: String },
    #[error("can't move the damaged file {file} aside: delete it, it is rebuilt from the log")]
    MoveAside { file: PathBuf, source: std::io::Error },
}

impl ReadModel {
    /// Opens `file`, or makes it. One that is damaged or of another version is moved aside and begun anew.
    pub(crate) async fn open(file: &Path) -> Result<Self, OpenError> {
        let error = match Self::try_open(file).await {
            Ok(model) => return Ok(model),
            Err(error) if error.is_in_the_file() => error,
            Err(error) => return Err(error),
        };
        warn!(file = %file.display(), error = %chain(&error), "the API's tables can't be used; they are moved to *.broken and rebuilt from the log");
        move_aside(file).await?;
        Self::try_open(file).await
    }

    async fn try_open(file: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Open { file: file.to_owned(), source };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL a power cut may lose the last transactions, never consistency; the log has them.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY);
        let pool = |most| SqlitePoolOptions::new().max_connections(most).acquire_timeout(ACQUIRE);
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let checked = async {
            check(&writer, file).await?;
            sqlx::migrate!()
                .run(&writer)
                .await
                .map_err(|source| OpenError::Migrate { file: file.to_owned(), source })?;
            // The readers come last: they can't make the file.
            pool(READERS).connect_with(options.read_only(true).create_if_missing(false)).await.map_err(failed)
        };
        match checked.await {
            Ok(readers) => Ok(Self { writer, readers, file: file.to_owned() }),
            Err(error) => {
                writer.close().await;
                Err(error)
            }
        }
    }
}

async fn check(pool: &SqlitePool, file: &Path) -> Result<(), OpenError> {
    let finding: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(pool)
        .await
        .map_err(|source| OpenError::Open { file: file.to_owned(), source })?;
    if finding == "ok" { Ok(()) } else { Err(OpenError::Damaged { file: file.to_owned(), finding }) }
}

impl OpenError {
    /// Whether the file itself is at fault, so that another one would do.
    fn is_in_the_file(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Open { source, .. } => is_damage(source),
            Self::Migrate { source, .. } => match source {
                MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => is_damage(e),
                // Made by another version of kadr.
                MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => true,
                _ => false,
            },
            Self::MoveAside { .. } => false,
        }
    }
}

/// `SQLITE_CORRUPT` and `SQLITE_NOTADB`, with their extended codes.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|c| c.parse::<u32>().ok());
    matches!(code.map(|c| c & 0xff), Some(11 | 26))
}

async fn move_aside(file: &Path) -> Result<(), OpenError> {
    for companion in COMPANIONS {
        let with = |suffix: &str| {
            let mut name = file.as_os_str().to_owned();
            name.push(companion);
            name.push(suffix);
            PathBuf::from(name)
        };
        match tokio::fs::rename(with(""), with(".broken")).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::MoveAside { file: with(""), source: e });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_no_database_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        let junk = b"this is no database, it only has its name".repeat(50);
        std::fs::write(&file, &junk).unwrap();
        let model = ReadModel::open(&file).await.unwrap();
        assert_eq!(model.checkpoint().await.unwrap().seq, 0);
        assert_eq!(std::fs::read(folder.path().join("api.sqlite3.broken")).unwrap(), junk);
    }

    #[tokio::test]
    async fn a_damaged_page_is_found_and_the_tables_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        ReadModel::open(&file).await.unwrap().close().await;
        let mut bytes = std::fs::read(&file).unwrap();
        // The first page holds the header and the schema; the others hold the tables.
        bytes[4096..].fill(0xa5);
        std::fs::write(&file, bytes).unwrap();
        let model = ReadModel::open(&file).await.unwrap();
        assert_eq!(model.checkpoint().await.unwrap().seq, 0);
        assert!(folder.path().join("api.sqlite3.broken").exists());
    }

    #[tokio::test]
    async fn another_versions_tables_are_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        let model = ReadModel::open(&file).await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&model.writer).await.unwrap();
        model.close().await;
        ReadModel::open(&file).await.unwrap();
        assert!(folder.path().join("api.sqlite3.broken").exists());
    }

    #[tokio::test]
    async fn a_folder_in_its_place_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.sqlite3");
        std::fs::create_dir(&file).unwrap();
        let error = ReadModel::open(&file).await.unwrap_err().to_string();
        assert!(error.contains("api.sqlite3"), "{error}");
    }
}
