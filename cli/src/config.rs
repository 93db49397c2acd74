//! Settings of services: defaults, then a file, then the environment, then flags. Unknown keys are refused.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use kadr_api::Place;
use kadr_inference::{Store, detector::Options, device::Device, fast::Precision};
use kadr_shared::{catalog::Catalog, id::ModelName, secret::SecretKey};
use serde::{Deserialize, Serialize};

use crate::{args::ServiceArgs, secret_key};

/// The file that is read if none is named.
const FILE: &str = "kadr.toml";

/// Everything that services are told.
// No `Debug`: addresses hold passwords.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    /// Where the API gives live video by RTSP; none: nowhere.
    pub rtsp: Option<SocketAddr>,
    pub data: PathBuf,
    /// Where the API's tables are; none: in the data folder.
    pub database: Option<String>,
    pub nats: Option<String>,
    pub nats_port: u16,
    /// Folders, separated by colons.
    pub models: String,
    pub capacity: usize,
    pub workers: Option<usize>,
    /// Of one frame; none: as inference has it.
    pub threads: Option<usize>,
    pub precision: Precision,
    /// What inference computes on.
    pub device: String,
    /// Frames that a GPU computes together.
    pub batch: Option<usize>,
    /// The models that inference serves, separated by commas; none: all.
    pub serve: String,
    /// The key that cameras' passwords are encrypted with; `kadr up` makes its own.
    pub secret_key_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            rtsp: None,
            data: ".kadr/data".into(),
            database: None,
            nats: None,
            nats_port: 0,
            models: "models".into(),
            capacity: 16,
            workers: None,
            threads: None,
            precision: Precision::default(),
            device: Device::default().to_string(),
            batch: None,
            serve: String::new(),
            secret_key_file: None,
        }
    }
}

/// The environment's variables are these names in capitals behind `KADR_`; others with that prefix are not settings.
const KEYS: [&str; 15] = [
    "listen",
    "rtsp",
    "data",
    "database",
    "nats",
    "nats_port",
    "models",
    "capacity",
    "workers",
    "threads",
    "precision",
    "device",
    "batch",
    "serve",
    "secret_key_file",
];

impl Config {
    pub fn load(args: &ServiceArgs) -> Result<Self> {
        let file = args.config.clone().unwrap_or_else(|| FILE.into());
        if args.config.is_some() && !file.is_file() {
            bail!("there is no file {}: name another one by --config", file.display());
        }
        let mut figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(&file))
            .merge(Env::prefixed("KADR_").only(&KEYS));
        let nats_port = args.nats_port.map(u32::from);
        for (key, value) in [
            ("listen", args.listen.map(|v| v.to_string())),
            ("rtsp", args.rtsp.map(|v| v.to_string())),
            ("data", args.data.as_ref().map(|v| v.display().to_string())),
            ("database", args.database.clone()),
            ("nats", args.nats.clone()),
            ("models", args.models.clone()),
            ("precision", args.precision.map(|precision| precision.to_string())),
            ("device", args.device.map(|device| device.to_string())),
            ("serve", args.serve.clone()),
            ("secret_key_file", args.secret_key_file.as_ref().map(|v| v.display().to_string())),
        ] {
            if let Some(value) = value {
                figment = figment.merge(Serialized::default(key, value));
            }
        }
        for (key, value) in [
            ("nats_port", nats_port),
            ("capacity", args.capacity.map(to_u32)),
            ("workers", args.workers.map(to_u32)),
            ("threads", args.threads.map(to_u32)),
            ("batch", args.batch.map(to_u32)),
        ] {
            if let Some(value) = value {
                figment = figment.merge(Serialized::default(key, value));
            }
        }
        let config: Self = figment.extract().context("the settings can't be used")?;
        config.database()?;
        if config.capacity == 0 || config.threads == Some(0) || config.workers == Some(0) || config.batch == Some(0) {
            bail!("capacity, workers, threads and batch are at least 1");
        }
        Ok(config)
    }

    pub fn catalog(&self) -> Result<Catalog> {
        catalog(&self.models)
    }

    pub fn inference(&self) -> Result<kadr_inference::Config> {
        let given = self.threads.and_then(NonZeroUsize::new);
        let threads = given.unwrap_or(NonZeroUsize::MIN);
        let device = self.device.parse().context("--device (KADR_DEVICE, or `device` in the file) can't be used")?;
        let options = Options { device, precision: self.precision, threads, ..Options::default() };
        let store = Store::new(folders(&self.models));
        let config = kadr_inference::Config::new(self.catalog()?, store, options);
        let lanes = self.workers.and_then(NonZeroUsize::new).unwrap_or(config.lanes);
        let batch = self.batch.and_then(NonZeroUsize::new).unwrap_or(config.batch);
        let live_threads = given.unwrap_or(config.live_threads);
        Ok(kadr_inference::Config { lanes, batch, live_threads, models: self.served()?, ..config })
    }

    /// The models that inference serves; none: all.
    fn served(&self) -> Result<Vec<ModelName>> {
        let names = self.serve.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Result<_, _> = names.map(str::parse).collect();
        names.context("--serve (KADR_SERVE, or `serve` in the file) names no models")
    }

    pub fn runner(&self) -> Result<kadr_runner::Config> {
        let (capacity, secret_key) = (self.capacity, self.secret_key()?);
        Ok(kadr_runner::Config { capacity, secret_key, ..kadr_runner::Config::new(self.data.clone()) })
    }

    pub fn api(&self) -> Result<kadr_api::Config> {
        Ok(kadr_api::Config {
            listen: self.listen,
            rtsp: self.rtsp,
            database: self.database()?,
            catalog: self.catalog()?,
            secret_key: self.secret_key()?,
        })
    }

    fn secret_key(&self) -> Result<Option<SecretKey>> {
        self.secret_key_file.as_deref().map(secret_key::read).transpose()
    }

    /// With a key of its own, if none was named: for a system that is one process.
    pub fn with_secret_key(&self) -> Result<Self> {
        let file = match &self.secret_key_file {
            Some(file) => file.clone(),
            None => secret_key::of(&self.data)?,
        };
        Ok(Self { secret_key_file: Some(file), ..self.clone() })
    }

    /// Where the API's tables are.
    pub fn database(&self) -> Result<Place> {
        match &self.database {
            Some(text) => text.parse().context("--database (KADR_DATABASE, or `database` in the file) can't be used"),
            None => Ok(Place::in_folder(&self.data)),
        }
    }
}

fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The folders of a search path.
pub fn folders(models: &str) -> Vec<PathBuf> {
    models.split(':').filter(|part| !part.is_empty()).map(|part| Path::new(part).to_owned()).collect()
}

/// The catalogue of models that the folders hold, or the built-in one.
pub fn catalog(models: &str) -> Result<Catalog> {
    Catalog::find(&folders(models)).context("the catalogue of models can't be used")
}
