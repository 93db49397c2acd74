//! Where the API's tables are: a file, or a database on a server. What a user writes as the setting `database`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::postgres::PgConnectOptions;
use url::Url;

/// The file in a data folder.
const FILE: &str = "api.sqlite3";
/// What may stand behind `?` of an address: how to connect, and nothing that changes what statements mean.
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host"];

/// Where the tables are. Its text never holds a password.
#[derive(Clone)]
pub struct Place(pub(crate) Where);

#[derive(Clone)]
pub(crate) enum Where {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

/// A text that names no place for tables. It shows nothing of the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("the database is to be written as sqlite:PATH or postgres://user:password@host/database")]
    Scheme,
    #[error("sqlite: wants the path of a file behind it, as in sqlite:/var/lib/kadr/api.sqlite3")]
    NoFile,
    #[error(
        "the address of the PostgreSQL database can't be read: write postgres://user:password@host:5432/database, with %40 for an @ in the password and the like"
    )]
    Address,
    #[error(
        "the address of the PostgreSQL database names no {what}: write postgres://user:password@host:5432/database"
    )]
    Missing { what: &'static str },
    #[error("the address of the PostgreSQL database has the parameter {name:?}; kadr takes {}", PARAMETERS.join(", "))]
    Parameter { name: String },
}

impl Place {
    /// SQLite, in the data folder: what is used if nothing is said.
    pub fn in_folder(data: &Path) -> Self {
        Self(Where::Sqlite(data.join(FILE)))
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match text.split_once(':') {
            Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
                "" | ":memory:" => Err(PlaceError::NoFile),
                path => Ok(Self(Where::Sqlite(path.into()))),
            },
            Some(("postgres" | "postgresql", _)) => {
                postgres(text).map(|options| Self(Where::Postgres(Box::new(options))))
            }
            _ => Err(PlaceError::Scheme),
        }
    }
}

/// Sources of these errors would show what was written: they are left out.
fn postgres(text: &str) -> Result<PgConnectOptions, PlaceError> {
    let url = Url::parse(text).map_err(|_| PlaceError::Address)?;
    if let Some((name, _)) = url.query_pairs().find(|(name, _)| !PARAMETERS.contains(&name.as_ref())) {
        return Err(PlaceError::Parameter { name: name.chars().take(40).collect() });
    }
    let socket = url.query_pairs().any(|(name, _)| name == "host");
    if url.host_str().is_none_or(str::is_empty) && !socket {
        return Err(PlaceError::Missing { what: "host" });
    }
    if url.username().is_empty() {
        return Err(PlaceError::Missing { what: "user" });
    }
    if url.path().trim_matches('/').is_empty() {
        return Err(PlaceError::Missing { what: "database" });
    }
    text.parse().map_err(|_| PlaceError::Address)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Where::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Where::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                let at = match options.get_socket() {
                    Some(socket) => socket.display().to_string(),
                    None => format!("{}:{}", options.get_host(), options.get_port()),
                };
                write!(f, "postgres://{}@{at}/{database}", options.get_username())
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, PlaceError> {
        text.parse::<Place>().map(|place| place.to_string())
    }

    #[test]
    fn places_are_read_and_shown_without_password() {
        for (text, wanted) in [
            ("sqlite:/a/b.sqlite3", "sqlite:/a/b.sqlite3"),
            ("sqlite:///a/b", "sqlite:/a/b"),
            ("sqlite:b", "sqlite:b"),
            ("postgres://me:se%40cret@db/kadr", "postgres://me@db:5432/kadr"),
            ("postgresql://me:secret@db:7/kadr?sslmode=require", "postgres://me@db:7/kadr"),
            ("postgres://me:secret@%2Frun%2Fpg/kadr", "postgres://me@/run/pg/kadr"),
        ] {
            assert_eq!(shown(text).unwrap(), wanted);
            assert_eq!(format!("{:?}", text.parse::<Place>().unwrap()), wanted);
        }
    }

    #[test]
    fn bad_places_are_refused_without_showing_them() {
        for (text, wanted) in [
            ("", "sqlite:PATH"),
            ("mysql://me:secret@db/kadr", "sqlite:PATH"),
            ("/a/b.sqlite3", "sqlite:PATH"),
            ("sqlite:", "path of a file"),
            ("sqlite::memory:", "path of a file"),
            ("postgres://me:sec/ret@db/kadr", "%40"),
            ("postgres://me:secret@db", "no database"),
            ("postgres://me:secret@db/", "no database"),
            ("postgres://:secret@db/kadr", "no user"),
            ("postgres:///kadr", "no host"),
            ("postgres://me:secret@db/kadr?sslmode=secret", "can't be read"),
            ("postgres://me@db/kadr?password=secret", "\"password\""),
            ("postgres://me:secret@db/kadr?options=-csearch_path=x", "\"options\""),
        ] {
            let error = shown(text).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(wanted), "{text}: {told}");
            assert!(!told.contains("secret") && !told.contains("sec/ret"), "{told}");
        }
    }
}
