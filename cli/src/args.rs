//! What can be typed. Meaning is given to it elsewhere.

mod settings;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use kadr_inference::{device::Device, fast::Precision};
use kadr_shared::{
    filter::Rate,
    geometry::InputSize,
    id::{CommandId, ModelName, ScenarioId},
    moment::Moment,
    settings::{Fps, Ratio},
};

pub use self::settings::{
    AnalysisArgs, OutputArgs, PaceArg, PreprocessArgs, RecordArg, SourceArgs, TextFormatArg, TlsArg, TransportArg,
};
use crate::commands::events::play::{PlainSubject, Speed};

/// Watches video and tells what it sees.
#[derive(Debug, Parser)]
#[command(name = "kadr", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the whole system on this machine, until Ctrl-C
    Up(ServiceArgs),
    /// Analyse a video or an image: annotated MP4, detections and event log
    Analyze(AnalyzeArgs),
    /// Start the API alone
    Api(ServiceArgs),
    /// Start an orchestrator alone
    Orchestrator(ServiceArgs),
    /// Start a runner alone
    Runner(ServiceArgs),
    /// Start an inference worker alone
    Inference(ServiceArgs),
    /// Create, look at, start, stop and delete scenarios
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// Find cameras on this machine's networks by ONVIF, with their streams
    Discover(DiscoverArgs),
    /// Follow or replay the log of a scenario
    #[command(subcommand)]
    Events(EventsCommand),
    /// List models, fetch their weights, import others
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Look after the API's tables, which follow from the log
    #[command(subcommand)]
    Projection(ProjectionCommand),
}

impl Command {
    /// Services tell what they do; commands for people only what is wrong.
    pub const fn default_log(&self) -> &'static str {
        match self {
            Self::Up(_) | Self::Api(_) | Self::Orchestrator(_) | Self::Runner(_) | Self::Inference(_) => {
                "info,async_nats=warn,poem=warn"
            }
            Self::Analyze(_) => "error",
            Self::Discover(_) | Self::Scenario(_) | Self::Events(_) | Self::Models(_) | Self::Projection(_) => "warn",
        }
    }
}

/// Settings of services. Each may also stand in the file (`listen = "…"`) or in the environment (`KADR_LISTEN=…`);
/// flags win over the environment, and that over the file.
#[derive(Debug, Clone, Args)]
pub struct ServiceArgs {
    /// Where the API listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where the API gives live video by RTSP, as rtsp://ADDR/{id}; 8554 is the usual port [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub rtsp: Option<SocketAddr>,
    /// Folder of all that is kept: NATS' streams, the API's tables, recordings [default: .kadr/data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the API keeps its tables: sqlite:PATH, or postgres://user:password@host/database, which several APIs may
    /// share. Others see the flags of a process: a password is better put into KADR_DATABASE or the file
    /// [default: sqlite:api.sqlite3 in the data folder]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// A running NATS server; without it `kadr up` starts its own
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Port of `kadr up`'s own NATS server; 0 takes a free one [default: 0]
    #[arg(long, value_name = "PORT")]
    pub nats_port: Option<u16>,
    /// Folders of models, separated by colons [default: models]
    #[arg(long, value_name = "DIRS")]
    pub models: Option<String>,
    /// File with the key that cameras' passwords are encrypted with: the same for all APIs and runners [default: `up`
    /// makes its own in the data folder]
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Scenarios that a runner takes at the same time [default: 16]
    #[arg(long, value_name = "N")]
    pub capacity: Option<usize>,
    /// Frames that an inference worker analyses at the same time [default: as many as there are cores for]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Threads that analyse one frame: one has more done, more have each frame done sooner [default: 1, and up to 4 for a camera's
    /// frame, as far as they are free]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How models are computed: f32, bf16 or int8 [default: f32]
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// What inference computes on: cpu, cuda or cuda:N [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Frames that a GPU computes together [default: 8 on a GPU]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Models that inference serves, separated by commas, loaded and warm before it does [default: all, when they are asked for]
    #[arg(long, value_name = "MODELS")]
    pub serve: Option<String>,
    /// A file with these settings (TOML) [default: kadr.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DiscoverArgs {
    /// Ask this host only: its name or address, and its web server's port behind a colon if it is not 80
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// A user of the cameras, for their streams
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// A file that holds its password in the first line; `-`: the standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// How many seconds answers are waited for
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=60))]
    pub wait: u8,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DetectionsArgs {
    pub scenario: ScenarioId,
    /// Print results as they are stored, until Ctrl-C: those from now on, or with --from those before, too
    #[arg(long)]
    pub follow: bool,
    /// Begin with this sequence of the stored results
    #[arg(long, value_name = "SEQ")]
    pub from: Option<u64>,
    /// How they are printed
    #[arg(long, value_enum, default_value = "jsonl")]
    pub format: TextFormatArg,
    /// Classes, separated by commas; frames of which nothing is left are left out
    #[arg(long, value_delimiter = ',')]
    pub class: Vec<String>,
    /// Leave out detections of less confidence
    #[arg(long)]
    pub confidence: Option<Ratio>,
    /// The most results a second, by the time at which frames are shown
    #[arg(long)]
    pub rate: Option<Rate>,
    /// Address of the API
    #[arg(long, value_name = "URL", env = "KADR_API", default_value = "http://127.0.0.1:8080")]
    pub api: String,
}

#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// H.264 in MP4 or MKV or without a container, a JPEG or a PNG, a folder of images, or a pattern such as 'img*.jpg'
    pub source: PathBuf,
    /// Images a second [default: 1], or the frames of H.264 without a container
    #[arg(long)]
    pub fps: Option<Fps>,
    /// Folder for the results; it is made if it is missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub analysis: AnalysisArgs,
    /// Write detections.csv, too: a line a detection
    #[arg(long)]
    pub csv: bool,
    /// Folders of models, separated by colons
    #[arg(long, value_name = "DIRS", env = "KADR_MODELS", default_value = "models")]
    pub models: String,
    /// Frames analysed at the same time; by default as many as there are cores for
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Threads that analyse one frame
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// How the model is computed: f32, bf16 or int8
    #[arg(long, value_name = "PRECISION", default_value_t)]
    pub precision: Precision,
    /// What it is computed on: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: Device,
}

/// Where the API is, and how its answers are shown.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Address of the API
    #[arg(long, value_name = "URL", env = "KADR_API", default_value = "http://127.0.0.1:8080")]
    pub api: String,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Create a scenario
    Create {
        id: ScenarioId,
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        analysis: AnalysisArgs,
        #[command(flatten)]
        outputs: OutputArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List all scenarios
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show a scenario, as it is or as it was
    Get {
        id: ScenarioId,
        /// A sequence of the log, or a time (2026-01-31T12:00:00Z): show it as it was then
        #[arg(long, value_name = "SEQ|TIME")]
        at: Option<Moment>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show how a scenario got from state to state, and how long each state lasted
    History {
        id: ScenarioId,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Give a scenario that does not run other settings; what is not given gets its default, not what it was
    Configure {
        id: ScenarioId,
        #[command(flatten)]
        source: SourceArgs,
        #[command(flatten)]
        analysis: AnalysisArgs,
        #[command(flatten)]
        outputs: OutputArgs,
        /// Idempotency key: repeating a command with its key does nothing twice
        #[arg(long)]
        key: Option<CommandId>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Start a scenario
    Start(Keyed),
    /// Stop a scenario
    Stop(Keyed),
    /// Print what was found in a scenario's frames
    Detections(DetectionsArgs),
    /// Delete a scenario that does not run; its log stays
    Delete {
        id: ScenarioId,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
pub struct Keyed {
    pub id: ScenarioId,
    /// Idempotency key: repeating a command with its key does nothing twice
    #[arg(long)]
    pub key: Option<CommandId>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print events as they come, until Ctrl-C
    Tail(EventsArgs),
    /// Print the log and the state after each event; with --to-subject, play the recorded detections again
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    pub scenario: ScenarioId,
    /// Begin with this sequence of the log
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub from: u64,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    pub scenario: ScenarioId,
    /// Begin with this sequence (of the log; with --to-subject, of the detections) or at this time
    #[arg(long, value_name = "SEQ|TIME", default_value = "1")]
    pub from: Moment,
    /// End with this sequence or at this time; by default with what is stored now
    #[arg(long, value_name = "SEQ|TIME")]
    pub to: Option<Moment>,
    /// Publish the scenario's recorded detections on this subject of core NATS, with the gaps that they were stored with
    #[arg(long, value_name = "SUBJECT", requires = "nats")]
    pub to_subject: Option<PlainSubject>,
    /// How fast: 1 keeps the gaps, however long; 2 halves them; max leaves none
    #[arg(long, value_name = "1|max|FACTOR", default_value = "1", requires = "to_subject")]
    pub speed: Speed,
    /// The NATS server that holds the detections and takes them again; `kadr up` prints its own
    #[arg(long, value_name = "URL", env = "KADR_NATS")]
    pub nats: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub enum ProjectionCommand {
    /// Throw the API's tables away and make them anew from the log
    ///
    /// With SQLite no API may run on them meanwhile. With PostgreSQL APIs may go on: they see the tables go back and come
    /// up again. Without --nats it takes the log of `kadr up`, which must not run.
    Rebuild(ServiceArgs),
}

#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the models and whether their weights are here
    List {
        #[command(flatten)]
        folders: ModelFolders,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Download a model's weights into the first folder
    Fetch {
        name: ModelName,
        /// Do nothing if good weights are in any of the folders
        #[arg(long)]
        if_missing: bool,
        #[command(flatten)]
        folders: ModelFolders,
    },
    /// Look at frames, so that int8 can be used: what is found is kept beside the weights
    Calibrate(CalibrateArgs),
    /// Make a file of weights a model in the first folder: an Ultralytics checkpoint (.pt), its ONNX export, safetensors
    ///
    /// Scale and classes are found out. Before anything is written, the network is computed on an image in two ways, which
    /// must agree. Nothing in the file is executed.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub struct CalibrateArgs {
    pub name: ModelName,
    /// A clip or picture like those that will be analysed; may be given several times
    #[arg(long = "clip", value_name = "FILE", required = true)]
    pub clips: Vec<PathBuf>,
    /// Frames to look at, of all clips together
    #[arg(long, value_name = "N", default_value = "44", value_parser = clap::value_parser!(u16).range(1..))]
    pub frames: u16,
    /// The model's input, width x height, multiples of 32
    #[arg(long, value_name = "WxH", default_value = "640x640")]
    pub input_size: InputSize,
    #[command(flatten)]
    pub folders: ModelFolders,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    pub file: PathBuf,
    /// The new model's name
    #[arg(long)]
    pub name: ModelName,
    /// A label a class, separated by commas; by default those in the file
    #[arg(long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// The weights' licence, as an SPDX expression
    #[arg(long, default_value = "unknown")]
    pub licence: String,
    /// A JPEG or PNG to verify the network on; by default a made-up picture
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    #[command(flatten)]
    pub folders: ModelFolders,
}

#[derive(Debug, Args)]
pub struct ModelFolders {
    /// Folders of models, separated by colons
    #[arg(long, value_name = "DIRS", env = "KADR_MODELS", default_value = "models")]
    pub models: String,
}
