//! All services in one process: started in order, watched, stopped in the opposite order.

use std::{future::Future, net::SocketAddr, path::Path, pin::Pin, time::Duration};

use anyhow::{Context, Result, anyhow};
use kadr_api::Api;
use kadr_shared::{nats::Nats, server::Server, streams};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;

/// A service may take this long to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// No new commands; the runner lets go and reports it; then nobody needs inference; the orchestrator writes it all down.
const STOP_ORDER: [&str; 4] = ["api", "runner", "inference", "orchestrator"];

/// Where the system's NATS is.
pub enum Broker {
    Own(Box<Server>),
    Given(String),
}

impl Broker {
    /// The server that is named, or an own one with its data below `data`.
    pub async fn start(nats: Option<&str>, data: &Path, port: u16) -> Result<Self> {
        match nats {
            Some(url) => Ok(Self::Given(url.to_owned())),
            None => Ok(Self::Own(Box::new(Server::start(&data.join("nats"), port).await?))),
        }
    }

    pub fn url(&self) -> &str {
        match self {
            Self::Own(server) => server.url(),
            Self::Given(url) => url,
        }
    }

    async fn ended(&mut self) {
        match self {
            Self::Own(server) => server.ended().await,
            Self::Given(_) => std::future::pending().await,
        }
    }

    pub async fn stop(self) {
        if let Self::Own(server) = self {
            server.stop().await;
        }
    }
}

/// One service's task.
struct Service {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

/// The running system.
pub struct System {
    broker: Broker,
    /// In the order of their start.
    services: Vec<Service>,
    api: SocketAddr,
    rtsp: Option<SocketAddr>,
}

impl System {
    /// Starts everything; when it returns, the API listens.
    pub async fn start(config: &Config) -> Result<Self> {
        let broker = Broker::start(config.nats.as_deref(), &config.data, config.nats_port).await?;
        let url = broker.url().to_owned();
        let mut system = Self { broker, services: Vec::new(), api: config.listen, rtsp: config.rtsp };
        if let Err(error) = system.start_services(config, &url).await {
            system.stop().await;
            return Err(error);
        }
        Ok(system)
    }

    async fn start_services(&mut self, config: &Config, url: &str) -> Result<()> {
        let config = &config.with_secret_key()?;
        let nats = Nats::connect(url, "kadr-orchestrator").await?;
        streams::ensure_at_start(&nats).await?;
        let api = Api::bind(config.api()?, Nats::connect(url, "kadr-api").await?).await?;
        (self.api, self.rtsp) = (api.local_addr(), api.rtsp_addr());
        let name = format!("orchestrator-{}", std::process::id());
        self.spawn("orchestrator", |stop| flat(kadr_orchestrator::run(kadr_orchestrator::Config { name }, nats, stop)));
        let (inference, nats) = (config.inference()?, Nats::connect(url, "kadr-inference").await?);
        self.spawn("inference", |stop| flat(kadr_inference::run(inference, nats, stop)));
        let runner = config.runner()?;
        let (control, frames) =
            (Nats::connect(url, "kadr-runner").await?, Nats::connect(url, "kadr-runner-frames").await?);
        self.spawn("runner", |stop| flat(kadr_runner::run(runner, control, frames, stop)));
        self.spawn("api", |stop| flat(api.run(stop)));
        info!(api = %self.api, nats = kadr_shared::nats::redacted(url), "the system is up");
        Ok(())
    }

    fn spawn(
        &mut self,
        name: &'static str,
        service: impl FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>,
    ) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(service(stop.clone()));
        self.services.push(Service { name, stop, task });
    }

    /// Where the API listens.
    pub const fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where it listens for players of RTSP, if it does.
    pub const fn rtsp(&self) -> Option<SocketAddr> {
        self.rtsp
    }

    pub fn nats_url(&self) -> &str {
        self.broker.url()
    }

    /// Returns when a part has ended that should not have: with what it said.
    pub async fn broken(&mut self) -> anyhow::Error {
        let services = self.services.iter_mut().map(|service| {
            let name = service.name;
            Box::pin(async move { (name, (&mut service.task).await) })
        });
        let any = async {
            if services.len() == 0 {
                return std::future::pending().await;
            }
            futures::future::select_all(services).await.0
        };
        tokio::select! {
            () = self.broker.ended() => anyhow!("the NATS server ended by itself: its log is nats/nats-server.log in the data folder"),
            (name, result) = any => {
                // Its handle gave its result: it must not be asked again.
                let error = match result {
                    Ok(Ok(())) => anyhow!("it ended by itself"),
                    Ok(Err(error)) => error,
                    Err(error) => anyhow!(error),
                };
                self.services.retain(|service| service.name != name);
                error.context(format!("the {name} ended"))
            }
        }
    }

    /// Stops the services in order, and NATS last.
    pub async fn stop(self) {
        let mut services = self.services;
        services.sort_by_key(|service| STOP_ORDER.iter().position(|name| *name == service.name));
        for service in services {
            service.stop.cancel();
            match timeout(STOP_TIMEOUT, service.task).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => warn!(service = service.name, "ended with an error: {error:#}"),
                Ok(Err(error)) => warn!(service = service.name, %error, "broke"),
                Err(_) => warn!(service = service.name, "did not stop in time"),
            }
        }
        self.broker.stop().await;
    }
}

fn flat<E: std::error::Error + Send + Sync + 'static>(
    service: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    Box::pin(async move { service.await.map_err(anyhow::Error::from) })
}

/// One service by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    Api,
    Orchestrator,
    Runner,
    Inference,
}

/// Runs one service against a NATS server that is named, until `stop`.
pub async fn run_single(single: Single, config: &Config, url: &str, stop: CancellationToken) -> Result<()> {
    match single {
        Single::Api => {
            let nats = Nats::connect(url, "kadr-api").await?;
            streams::ensure_at_start(&nats).await?;
            let api = Api::bind(config.api()?, nats).await?;
            info!(address = %api.local_addr(), "the API listens");
            api.run(stop).await.context("the API ended")
        }
        Single::Orchestrator => {
            let nats = Nats::connect(url, "kadr-orchestrator").await?;
            let name = format!("orchestrator-{}", std::process::id());
            let config = kadr_orchestrator::Config { name };
            kadr_orchestrator::run(config, nats, stop).await.context("the orchestrator ended")
        }
        Single::Runner => {
            let control = Nats::connect(url, "kadr-runner").await?;
            let frames = Nats::connect(url, "kadr-runner-frames").await?;
            kadr_runner::run(config.runner()?, control, frames, stop).await.context("the runner ended")
        }
        Single::Inference => {
            let nats = Nats::connect(url, "kadr-inference").await?;
            streams::ensure_at_start(&nats).await?;
            kadr_inference::run(config.inference()?, nats, stop).await.context("the inference worker ended")
        }
    }
}
