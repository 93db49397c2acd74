//! Requests to the apis, as any client would make them, and how their answers are to be understood.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{now, plan::Ask};

/// Longer than an api takes for any answer.
const TIMEOUT: Duration = Duration::from_secs(12);
const CONNECT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Rest {
    http: reqwest::Client,
    pub apis: Vec<String>,
}

/// What came back for one try of one command.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    pub key: String,
    pub scenario: String,
    pub ask: &'static str,
    pub api: usize,
    pub at: i64,
    pub until: i64,
    /// 0: none at all.
    pub status: u16,
    pub body: Value,
}

/// A scenario as an api showed it in the middle of everything.
#[derive(Debug, Clone)]
pub struct Read {
    pub scenario: String,
    pub api: usize,
    /// The answer was to have seen this sequence.
    pub at_least: Option<u64>,
    pub status: u16,
    pub body: Value,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Done; the sequence of the event that says so, if the answer names it.
    Done(Option<u64>),
    /// Refused for this reason: the log must say the same.
    Refused(String),
    /// The key was used for something else.
    KeyUsed,
    /// Whether it was stored or what became of it is not known: the same may be asked again.
    Unclear,
    /// No answer that could be meant.
    Odd,
}

/// Reasons for which a command is refused by the state machine.
const REFUSALS: [&str; 6] =
    ["not_found", "already_exists", "already_running", "not_running", "shutting_down", "still_running"];

impl Answer {
    pub fn meaning(&self) -> Meaning {
        let problem = self.body.get("type").and_then(Value::as_str).and_then(|t| t.strip_prefix("urn:kadr:problem:"));
        match (self.status, problem) {
            (0 | 500.., _) => Meaning::Unclear,
            (202, _) => self
                .body
                .get("accepted_at_seq")
                .and_then(Value::as_u64)
                .map_or(Meaning::Unclear, |seq| Meaning::Done(Some(seq))),
            (200 | 201, _) => Meaning::Done(self.body.get("seq").and_then(Value::as_u64)),
            (204, _) => Meaning::Done(None),
            (409, Some("idempotency_conflict")) => Meaning::KeyUsed,
            (404 | 409, Some(reason)) if REFUSALS.contains(&reason) => Meaning::Refused(reason.to_owned()),
            _ => Meaning::Odd,
        }
    }
}

impl Rest {
    pub fn new(apis: Vec<String>) -> Result<Self> {
        // The client can speak TLS, which is never used here, and wants to know by which crypto.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(TIMEOUT).connect_timeout(CONNECT).pool_max_idle_per_host(8);
        Ok(Self { http: client.build().context("can't make an HTTP client")?, apis })
    }

    /// Asks an api for something once.
    pub async fn ask(&self, api: usize, scenario: &str, ask: Ask, settings: &Value, key: &str) -> Answer {
        let base = self.apis.get(api).cloned().unwrap_or_default();
        let one = format!("{base}/v1/scenarios/{scenario}");
        let request = match ask {
            Ask::Create => self
                .http
                .request(Method::POST, format!("{base}/v1/scenarios"))
                .query(&[("id", scenario)])
                .json(settings),
            Ask::Reconfigure => self.http.request(Method::PUT, one).json(settings),
            Ask::Start | Ask::Stop => {
                self.http.request(Method::POST, format!("{one}/commands")).json(&json!({"command": ask.name()}))
            }
            Ask::Delete => self.http.request(Method::DELETE, one),
        };
        let at = now();
        let (status, body) = match request.header("Idempotency-Key", key).send().await {
            Ok(response) => (response.status().as_u16(), response.json().await.unwrap_or(Value::Null)),
            Err(error) => (0, Value::String(error.to_string())),
        };
        let (key, scenario) = (key.to_owned(), scenario.to_owned());
        Answer { key, scenario, ask: ask.name(), api, at, until: now(), status, body }
    }

    pub async fn get(&self, api: usize, path: &str) -> Option<(StatusCode, Value)> {
        let base = self.apis.get(api)?;
        let response = self.http.get(format!("{base}{path}")).send().await.ok()?;
        let status = response.status();
        Some((status, response.json().await.unwrap_or(Value::Null)))
    }

    /// All scenarios as an api lists them, page by page.
    pub async fn list(&self, api: usize) -> Option<Vec<Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let (status, mut page) = self.get(api, &format!("/v1/scenarios?limit=100{after}")).await?;
            if status != StatusCode::OK {
                return None;
            }
            all.append(page.get_mut("scenarios")?.as_array_mut()?);
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = format!("&after={next}"),
                None => return Some(all),
            }
        }
    }

    /// Whether scenarios can be reconfigured by REST here.
    pub async fn can_reconfigure(&self) -> bool {
        let answer = self.ask(0, "nobody", Ask::Reconfigure, &json!({}), "probe").await;
        answer.status != 405 && answer.status != 0
    }
}
