//! The REST API as seen from the command line.

pub mod sse;

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kadr_shared::{
    domain::{Cause, Event},
    id::{CommandId, ScenarioId},
    moment::Moment,
    settings::Settings,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Longer than the API takes for any answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A stream says so more often when it has nothing to tell.
const SILENCE: Duration = Duration::from_secs(45);
/// Events asked for at once.
const PAGE: u32 = 500;

pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// What is read of a scenario here; the rest is shown as it comes.
#[derive(Debug, Clone, Deserialize)]
pub struct Scenario {
    pub id: String,
    pub state: String,
    pub health: Health,
    pub progress: Progress,
    pub ended: Option<Ended>,
    pub settings: Settings,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Health {
    pub status: String,
    pub error: Option<String>,
    pub source_fps: Option<f64>,
    pub analysed_fps: Option<f64>,
    pub last_frame_at: Option<String>,
    /// Of a camera, while it runs.
    pub camera: Option<Camera>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Camera {
    pub connected_since: Option<String>,
    pub reconnects: u64,
    pub dropped_busy: u64,
    pub dropped_late: u64,
    #[serde(default)]
    pub dropped_unreadable: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Progress {
    pub frame: u64,
    pub of: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Ended {
    pub reason: String,
    pub error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Accepted {
    pub id: String,
    pub accepted_at_seq: Option<u64>,
}

/// Other settings: taken, with the scenario as they left it, or queued.
#[derive(Debug)]
pub enum Configured {
    Done(Value),
    Queued(Value),
}

/// How a scenario got from state to state.
#[derive(Debug, Serialize)]
pub struct History {
    pub transitions: Vec<Transition>,
    pub present: Option<Present>,
    pub seq: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Transition {
    pub seq: u64,
    pub at: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub duration_ms: Option<u64>,
    #[serde(rename = "type")]
    pub kind: String,
    pub cause: Cause,
    pub actor: String,
    pub reason: Option<String>,
    pub error: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Present {
    pub state: Option<String>,
    pub since: String,
    pub duration_ms: u64,
}

#[derive(Debug, Deserialize)]
struct HistoryPage {
    transitions: Vec<Transition>,
    present: Option<Present>,
    next: Option<u64>,
    seq: u64,
}

/// Some of the stored results, as lines.
#[derive(Debug)]
pub struct DetectionsPage {
    pub lines: String,
    /// Where to go on.
    pub next: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct EventsPage {
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct ScenariosPage {
    scenarios: Vec<Value>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
}

impl Client {
    pub fn new(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().context("can't make an HTTP client")?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned() })
    }

    pub async fn create(&self, id: &ScenarioId, settings: &Value) -> Result<Value> {
        let request = self.request(Method::POST, "/v1/scenarios").query(&[("id", id.as_str())]).json(settings);
        self.answer(request).await
    }

    pub async fn configure(&self, id: &ScenarioId, settings: &Value, key: &CommandId) -> Result<Configured> {
        let request = self
            .request(Method::PUT, &format!("/v1/scenarios/{id}"))
            .header("Idempotency-Key", key.as_str())
            .json(settings);
        let response = self.checked(self.send(request).await?).await?;
        let answered = response.status() != StatusCode::ACCEPTED;
        let body = response.json().await.context("the API's answer can't be read")?;
        Ok(if answered { Configured::Done(body) } else { Configured::Queued(body) })
    }

    pub async fn get(&self, id: &ScenarioId) -> Result<Value> {
        self.get_at(id, None).await
    }

    /// As it was at a moment, if there is one.
    pub async fn get_at(&self, id: &ScenarioId, at: Option<Moment>) -> Result<Value> {
        let query = at.map(|at| [("at", at.to_string())]);
        self.answer(self.request(Method::GET, &format!("/v1/scenarios/{id}")).query(&query)).await
    }

    /// All transitions, and the state that holds.
    pub async fn history(&self, id: &ScenarioId) -> Result<History> {
        let mut all = Vec::new();
        let mut from = 1;
        loop {
            let query = [("from", from.to_string()), ("limit", PAGE.to_string())];
            let request = self.request(Method::GET, &format!("/v1/scenarios/{id}/history")).query(&query);
            let page: HistoryPage = self.answer(request).await?;
            all.extend(page.transitions);
            match page.next {
                Some(next) => from = next,
                None => return Ok(History { transitions: all, present: page.present, seq: page.seq }),
            }
        }
    }

    pub async fn scenario(&self, id: &ScenarioId) -> Result<Scenario> {
        serde_json::from_value(self.get(id).await?).context("the API's answer can't be read")
    }

    pub async fn list(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let request = self.request(Method::GET, "/v1/scenarios").query(&after.as_ref().map(|id| [("after", id)]));
            let page: ScenariosPage = self.answer(request).await?;
            all.extend(page.scenarios);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    pub async fn command(&self, id: &ScenarioId, command: &str, key: &CommandId) -> Result<Accepted> {
        let request = self
            .request(Method::POST, &format!("/v1/scenarios/{id}/commands"))
            .header("Idempotency-Key", key.as_str())
            .json(&json!({ "command": command }));
        self.answer(request).await
    }

    /// False: it is queued, and no orchestrator has answered yet.
    pub async fn delete(&self, id: &ScenarioId) -> Result<bool> {
        let response = self.send(self.request(Method::DELETE, &format!("/v1/scenarios/{id}"))).await?;
        Ok(self.checked(response).await?.status() != StatusCode::ACCEPTED)
    }

    /// A page of a scenario's log from a sequence on; empty: there is no more.
    pub async fn events(&self, id: &ScenarioId, from: u64) -> Result<Vec<Event>> {
        let query = [("from", from.to_string()), ("limit", PAGE.to_string())];
        let request = self.request(Method::GET, &format!("/v1/scenarios/{id}/events")).query(&query);
        Ok(self.answer::<EventsPage>(request).await?.events)
    }

    /// A scenario's whole log from a sequence on.
    pub async fn all_events(&self, id: &ScenarioId, mut from: u64) -> Result<Vec<Event>> {
        let mut all = Vec::new();
        loop {
            let page = self.events(id, from).await?;
            let Some(last) = page.last() else { return Ok(all) };
            from = last.seq + 1;
            all.extend(page);
        }
    }

    /// A page of stored results.
    pub async fn detections(&self, id: &ScenarioId, query: &[(&str, String)]) -> Result<DetectionsPage> {
        let request = self.request(Method::GET, &format!("/v1/scenarios/{id}/detections")).query(query);
        let response = self.checked(self.send(request).await?).await?;
        let next = response.headers().get("Kadr-Next").and_then(|next| next.to_str().ok()?.parse().ok());
        Ok(DetectionsPage { lines: response.text().await.context("the API's answer can't be read")?, next })
    }

    /// The stream of results, behind the event with the id `last` if there is one.
    pub async fn live_detections(
        &self,
        id: &ScenarioId,
        query: &[(&str, String)],
        last: Option<&str>,
    ) -> Result<reqwest::Response> {
        // It has no end: only silence counts.
        let http = reqwest::Client::builder().connect_timeout(TIMEOUT).read_timeout(SILENCE).build()?;
        let address = format!("{}/v1/scenarios/{id}/detections/live", self.base);
        let mut request = http.get(address).query(query);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        self.checked(self.send(request).await?).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response> {
        request.send().await.map_err(|error| {
            let hint = "is it up? (`make up` or `kadr up`; --api names another address)";
            if error.is_builder() {
                anyhow!(error).context(format!("{} is no address of an API", self.base))
            } else {
                anyhow!(error).context(format!("no API answers at {}: {hint}", self.base))
            }
        })
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        self.checked(response).await?.json().await.context("the API's answer can't be read")
    }

    /// An error answer in words.
    async fn checked(&self, response: reqwest::Response) -> Result<reqwest::Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        match response.json::<Problem>().await {
            Ok(Problem { title, detail }) => bail!(detail.unwrap_or(title)),
            Err(_) if status == StatusCode::NOT_FOUND => bail!("{} is not kadr's API", self.base),
            Err(_) => bail!("the API answered {status}"),
        }
    }
}
