//! Requests that no client of kadr would send.

use serde_json::Value;

/// An answer, as far as tests look at it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

/// The client can speak TLS, which is never used here, and wants to know by which crypto.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

pub(crate) async fn get(address: &str) -> Answer {
    answer(client().get(address)).await
}

/// With an idempotency key, if there is one.
pub(crate) async fn post(address: &str, key: Option<&str>, body: &Value) -> Answer {
    let request = client().post(address).json(body);
    answer(if let Some(key) = key { request.header("Idempotency-Key", key) } else { request }).await
}

/// Bytes of this kind.
pub(crate) async fn send(address: &str, kind: &str, body: Vec<u8>) -> Answer {
    answer(client().post(address).header("Content-Type", kind).body(body)).await
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let content_type = response.headers().get("Content-Type").map(|v| v.to_str().unwrap().to_owned());
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Answer { status, content_type: content_type.unwrap_or_default(), body }
}

impl Answer {
    /// That it is a problem of this type.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, name: &str) {
        assert_eq!((self.status, self.content_type.as_str()), (status, "application/problem+json"), "{self:?}");
        assert_eq!(self.body["type"], format!("urn:kadr:problem:{name}"), "{self:?}");
    }
}
