//! What the tests share: a running API on a real nats-server, a stand-in for the orchestrator, and requests.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "helpers of tests, each test file uses some")]

use std::{collections::HashMap, net::SocketAddr, path::Path};

use kadr_api::{Api, ApiError, Config, Place};
use kadr_shared::{
    catalog::Catalog,
    domain::{Cause, Command, CommandEnvelope, CommandKind, EndReason, EventData, Phase, Refusal, State},
    id::{RunId, ScenarioId},
    log,
    nats::Nats,
    nodes::{self, LeaderBeat},
    publish::Stored,
    streams, subjects,
    tail::Tail,
    testkit::{TestServer, eventually},
    time::Timestamp,
};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server, an API on it, and a folder for its tables.
pub(crate) struct World {
    pub(crate) api: RunningApi,
    pub(crate) folder: TempDir,
    pub(crate) nats: Nats,
    pub(crate) server: TestServer,
}

impl World {
    /// All but an orchestrator.
    pub(crate) async fn without_orchestrator() -> Self {
        let server = TestServer::start().await;
        let nats = server.nats().await;
        let folder = TempDir::with_prefix("kadr-api-").unwrap();
        let api = RunningApi::start(nats.clone(), folder.path()).await;
        Self { api, folder, nats, server }
    }

    pub(crate) async fn start() -> (Self, Orchestrator) {
        let world = Self::without_orchestrator().await;
        let orchestrator = Orchestrator::start(world.nats.clone());
        (world, orchestrator)
    }
}

pub(crate) fn config(data: &Path) -> Config {
    let database = Place::in_folder(data);
    let (listen, rtsp) = ("127.0.0.1:0".parse().unwrap(), None);
    Config { listen, rtsp, database, catalog: Catalog::built_in().unwrap(), secret_key: None }
}

/// The API as a task.
pub(crate) struct RunningApi {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ApiError>>,
    client: reqwest::Client,
}

/// The client can speak TLS, which is never used here, and wants to know by which crypto.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// An answer, with all that tests look at.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) location: Option<String>,
    pub(crate) text: String,
}

impl RunningApi {
    pub(crate) async fn start(nats: Nats, data: &Path) -> Self {
        Self::on(nats, config(data)).await
    }

    pub(crate) async fn on(nats: Nats, config: Config) -> Self {
        Self::of(Api::bind(config, nats).await.unwrap())
    }

    pub(crate) fn of(api: Api) -> Self {
        let (address, shutdown) = (api.local_addr(), CancellationToken::new());
        let task = tokio::spawn(api.run(shutdown.clone()));
        Self { address, shutdown, task, client: client() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn create(&self, id: &str) -> Answer {
        self.post(&format!("/v1/scenarios?id={id}"), json!({"source": {"url": "/data/a.mp4"}})).await
    }

    /// A creation or, by PUT, other settings, with a key.
    pub(crate) async fn settings(&self, method: Method, path: &str, key: &str, url: &str) -> Answer {
        let body = json!({"source": {"url": url}});
        Answer::of(self.request(method, path).header("Idempotency-Key", key).json(&body)).await
    }

    /// A command with a key.
    pub(crate) async fn command(&self, id: &str, key: &str, command: &str) -> Answer {
        let request = self.request(Method::POST, &format!("/v1/scenarios/{id}/commands"));
        Answer::of(request.header("Idempotency-Key", key).json(&json!({"command": command}))).await
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&self) -> Answer {
        eventually("the API is ready", || async {
            let answer = self.get("/health/ready").await;
            (answer.status == 200).then_some(answer)
        })
        .await
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let text_of = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let (content_type, location) = (text_of(header::CONTENT_TYPE).unwrap_or_default(), text_of(header::LOCATION));
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            assert!(content_type.is_empty());
        }
        Self { status: status.as_u16(), content_type, location, text: response.text().await.unwrap() }
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Asserts that it is the problem of this name; its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, name: &str) -> String {
        let body = self.json(status);
        assert_eq!(self.content_type, "application/problem+json");
        assert_eq!(body["type"], format!("urn:kadr:problem:{name}"), "{body}");
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string());
        let mut fields: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["detail", "status", "title", "type"]);
        body["detail"].as_str().unwrap().to_owned()
    }
}

/// Reads the inbox and answers commands as the orchestrator does, without runners: a start waits for one, a stop ends.
pub(crate) struct Orchestrator {
    _stop: DropGuard,
}

impl Orchestrator {
    pub(crate) fn start(nats: Nats) -> Self {
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(answer_commands(nats.clone())));
        tokio::spawn(stop.clone().run_until_cancelled_owned(lead(nats, None)));
        Self { _stop: stop.drop_guard() }
    }
}

/// Holds the leader's key, through outages.
pub(crate) async fn lead(nats: Nats, trouble: Option<String>) {
    let beat = LeaderBeat { orchestrator: "stand-in".into(), trouble };
    loop {
        if let Some(key) = nodes::read_leader(&nats).await {
            let _ = nodes::claim_leader(&nats, &beat, key.revision).await;
        } else {
            let _ = streams::ensure(&nats).await;
        }
        tokio::time::sleep(streams::LEADER_RENEWAL).await;
    }
}

async fn answer_commands(nats: Nats) {
    let mut inbox = Tail::new(nats.jetstream.clone(), subjects::INBOX, subjects::INBOX_ALL, 1);
    let mut states: HashMap<ScenarioId, State> = HashMap::new();
    loop {
        let entry = inbox.next().await;
        let scenario = subjects::scenario_in(&entry.message.subject).unwrap();
        let envelope: CommandEnvelope = serde_json::from_slice(&entry.message.payload).unwrap();
        let mut state = states.remove(&scenario).unwrap_or_default();
        // What another stand-in appended.
        if state.seq == 0 {
            state = read_state(&nats, &scenario).await;
        }
        if entry.seq > state.last_input {
            for data in decide(&state, &envelope.command) {
                let cause = Cause { input: Some(entry.seq), id: envelope.id.to_string() };
                state = append(&nats, &scenario, state, cause, &envelope.actor, &data).await;
            }
        }
        states.insert(scenario, state);
    }
}

/// Appends an event, and gives the state after it.
pub(crate) async fn append(
    nats: &Nats,
    scenario: &ScenarioId,
    state: State,
    cause: Cause,
    actor: &str,
    data: &EventData,
) -> State {
    let stored = log::append(nats, scenario, state.seq, cause.clone(), actor.to_owned(), data).await.unwrap();
    let Stored::At(seq) = stored else { panic!("{stored:?}") };
    state.evolve(seq, Timestamp::now(), &cause, data)
}

/// A scenario's state, folded from its log.
pub(crate) async fn read_state(nats: &Nats, scenario: &ScenarioId) -> State {
    let stream = nats.jetstream.get_stream_no_info(subjects::EVENTS).await.unwrap();
    if stream.get_last_raw_message_by_subject(&subjects::events_of(scenario)).await.is_err() {
        return State::default();
    }
    let mut tail = log::tail_of(nats, scenario, 1);
    let mut state = State::default();
    loop {
        let entry = tail.next().await;
        let event = log::read(&entry).unwrap();
        state = state.evolve(event.seq, event.time, &event.cause, &event.parse().unwrap());
        if entry.pending == 0 {
            return state;
        }
    }
}

fn decide(state: &State, command: &Command) -> Vec<EventData> {
    let refuse = |reason| vec![EventData::CommandRefused { command: command.kind(), reason }];
    let Some(settings) = &state.settings else {
        return match command {
            Command::Create { settings } => {
                vec![EventData::ScenarioCreated { settings: settings.clone(), generation: state.generation + 1 }]
            }
            _ => refuse(Refusal::NotFound),
        };
    };
    if let (Command::Reconfigure { settings }, Phase::Inactive) = (command, &state.phase) {
        return vec![EventData::ScenarioReconfigured { settings: settings.clone() }];
    }
    let idle = state.phase == Phase::Inactive;
    match command.kind() {
        CommandKind::Create => refuse(Refusal::AlreadyExists),
        CommandKind::Delete if idle => vec![EventData::ScenarioDeleted {}],
        CommandKind::Delete | CommandKind::Reconfigure => refuse(Refusal::StillRunning),
        CommandKind::Start if idle => {
            vec![EventData::StartRequested { run: RunId::generate(), attempt: 1, settings: Box::new(settings.clone()) }]
        }
        CommandKind::Start => refuse(Refusal::AlreadyRunning),
        CommandKind::Stop if idle => refuse(Refusal::NotRunning),
        CommandKind::Stop => {
            let run = state.run.as_ref().unwrap().id;
            vec![
                EventData::StopRequested { run },
                EventData::ShutdownAcknowledged { run, gone: true },
                EventData::Deactivated { run, reason: EndReason::Stopped, frames: Some(0), error: None },
            ]
        }
    }
}

/// An API that is up to date with what was just done.
pub(crate) async fn eventually_get(api: &RunningApi, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(path, || async {
        let answer = api.get(path).await;
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        (answer.status == 200 && wanted(&body)).then_some(body)
    })
    .await
}
