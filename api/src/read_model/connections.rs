//! A few connections to PostgreSQL, made when they are needed.
//!
//! Not sqlx's pool: that one takes back a connection whose query was given up and waits for the server's word, without
//! a deadline, so that a server which hangs would use up the pool for good. Here a connection comes back only when all
//! went well with it; else it is thrown away.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How long one may wait for a free connection, and for a new one.
const LEASE_DEADLINE: Duration = Duration::from_secs(3);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long connections may take to say goodbye.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// At most so many connections.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    options: PgConnectOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<PgConnection>>,
}

impl fmt::Debug for Connections {
    /// The options hold the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, most: usize) -> Self {
        let permits = Arc::new(Semaphore::new(most));
        Self(Arc::new(Inner { options, permits, idle: Mutex::default() }))
    }

    /// A connection for oneself: an idle one, or a new one.
    pub(super) async fn lease(&self) -> Result<Lease, sqlx::Error> {
        let permit = timeout(LEASE_DEADLINE, self.0.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let used = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lease { connection, used, home: self.clone(), _permit: permit })
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        match timeout(CONNECT_DEADLINE, PgConnection::connect_with(&self.0.options)).await {
            Ok(connected) => connected,
            Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "PostgreSQL did not take the connection in time",
            ))),
        }
    }

    /// Ends those that are idle; no more are given out.
    pub(super) async fn close(&self) {
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            // Dropped it ends as well: the goodbye is a courtesy.
            let _ = timeout(CLOSE_DEADLINE, connection.close()).await;
        }
    }
}

/// A connection in use. Dropped, it ends.
pub(super) struct Lease {
    connection: PgConnection,
    used: bool,
    home: Connections,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Whether it had been idle: it may have ended since.
    pub(super) const fn is_used(&self) -> bool {
        self.used
    }

    /// A new connection in the place of one that has ended; the other idle ones have, too.
    pub(super) async fn renew(&mut self) -> Result<(), sqlx::Error> {
        self.home.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.connection = self.home.connect().await?;
        self.used = false;
        Ok(())
    }

    /// All went well: the next one may have it.
    pub(super) fn give_back(self) {
        let Self { connection, home, _permit, .. } = self;
        home.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
