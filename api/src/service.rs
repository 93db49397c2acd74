//! The service: binds, starts its parts, and ends them in order. What they do stands in their own modules.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kadr_shared::{catalog::Catalog, nats::Nats, secret::SecretKey, telemetry::chain};
use poem::{Server, listener::TcpAcceptor};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use crate::{
    commands::Commands,
    error::ApiError,
    http::{self, Services},
    live::Live,
    place::Place,
    projection::Projection,
    read_model::{ReadModel, Use},
    rtsp::{self, Desk},
    video::Hub,
};

/// What the API is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where it gives live video by RTSP; none: it does not.
    pub rtsp: Option<SocketAddr>,
    /// Where its tables are. A file and its folder are made if they are missing.
    pub database: Place,
    /// The models that a scenario may name.
    pub catalog: Catalog,
    /// What cameras' passwords are encrypted with; none: none can be given.
    pub secret_key: Option<SecretKey>,
}

/// How long the start waits for the tables.
const PREPARE_DEADLINE: Duration = Duration::from_secs(5);
/// How long requests under way may take at the end.
const GRACE: Duration = Duration::from_secs(5);
/// How long a part may take to end.
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Answers that go on for as long as somebody listens, at a time.
const LISTENERS: usize = 256;
/// Looks for cameras at a time.
const SEARCHES: usize = 4;
/// A connection on which nothing moves for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// The API, listening but not serving yet.
pub struct Api {
    listener: TcpListener,
    address: SocketAddr,
    rtsp: Option<(TcpListener, SocketAddr)>,
    config: Config,
    nats: Nats,
}

impl Api {
    /// Takes its addresses. Connections that come from now on wait for [`run`](Self::run).
    pub async fn bind(config: Config, nats: Nats) -> Result<Self, ApiError> {
        let (listener, address) = listen(config.listen, "--listen").await?;
        let rtsp = match config.rtsp {
            Some(address) => Some(listen(address, "--rtsp").await?),
            None => None,
        };
        Ok(Self { listener, address, rtsp, config, nats })
    }

    /// Where it listens, with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for players of RTSP, if it does.
    pub fn rtsp_addr(&self) -> Option<SocketAddr> {
        self.rtsp.as_ref().map(|(_, address)| *address)
    }

    /// Serves until the shutdown, then ends in order: requests under way first, what they need after them.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ApiError> {
        let Self { listener, address, rtsp, config, nats } = self;
        let Config { database, catalog, secret_key, .. } = config;
        let model = ReadModel::open(&database, Use::Shared).await?;
        // So that the first request finds tables. If a server does not answer now, the projection tries again.
        match timeout(PREPARE_DEADLINE, model.prepare()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = %chain(&error), "the API starts without its tables"),
            Err(_) => warn!(%database, "the API starts without its tables: there is no answer"),
        }

        let parts = CancellationToken::new();
        // If this future is dropped, its parts end too.
        let guard = parts.clone().drop_guard();
        let (projection, position) = Projection::new(nats.clone(), model.clone());
        let projection = tokio::spawn(projection.run(parts.clone()));
        let live = Live::default();
        let following = tokio::spawn(live.clone().follow(nats.clone(), parts.clone()));

        let commands = Commands::new(nats.clone(), model.clone(), position.clone());
        // Its viewers' answers have no end of their own.
        let hub = Hub::new(nats.clone(), shutdown.clone());
        let leave = shutdown.child_token();
        let _leave = leave.clone().drop_guard();
        let players = rtsp.map(|(listener, address)| {
            info!(%address, "players of RTSP are served");
            let desk = Desk { hub: hub.clone(), model: model.clone(), live: live.clone() };
            tokio::spawn(rtsp::serve(listener, desk, leave))
        });
        let services = Services {
            nats,
            model: model.clone(),
            commands,
            position,
            live,
            hub,
            catalog,
            secret_key,
            closing: shutdown.child_token(),
            listeners: Arc::new(Semaphore::new(LISTENERS)),
            searches: Semaphore::new(SEARCHES),
        };
        info!(%address, %database, "the API listens");
        let acceptor = TcpAcceptor::from_tokio(listener).map_err(ApiError::Serve)?;
        let served = Server::new_with_acceptor(acceptor)
            .name("api")
            .idle_timeout(IDLE)
            .run_with_graceful_shutdown(http::endpoint(services), shutdown.cancelled_owned(), Some(GRACE))
            .await;

        let mut tasks = vec![("projection", projection), ("live numbers", following)];
        tasks.extend(players.map(|players| ("RTSP server", players)));
        let ended = end(guard, tasks).await;
        model.close().await;
        served.map_err(ApiError::Serve)?;
        ended
    }
}

/// Takes an address, which a flag names.
async fn listen(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), ApiError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AddrInUse => ApiError::AddressInUse { address, flag, source },
        _ => ApiError::Listen { address, flag, source },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Ends the parts and waits for them; tells the first that had not ended well.
async fn end(guard: DropGuard, tasks: Vec<(&'static str, JoinHandle<()>)>) -> Result<(), ApiError> {
    drop(guard);
    let mut result = Ok(());
    for (task, mut handle) in tasks {
        match timeout(END_DEADLINE, &mut handle).await {
            Ok(Ok(())) => {}
            Ok(Err(source)) => result = result.and(Err(ApiError::Task { task, source })),
            Err(_) => {
                warn!(task, "did not end in time");
                handle.abort();
            }
        }
    }
    result
}
