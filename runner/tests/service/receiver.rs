//! Somebody's HTTP server that webhooks are sent to: it answers as it is told to, and remembers what it was sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use kadr_shared::{message::detection::FrameDetections, testkit::eventually};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How a request is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Status(u16),
    /// Never.
    Silence,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) taken: bool,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The results, each with its sequence.
    pub(crate) fn results(&self) -> Vec<(u64, FrameDetections)> {
        let results = self.json()["results"].as_array().unwrap().clone();
        results.into_iter().map(|r| (r["seq"].as_u64().unwrap(), serde_json::from_value(r).unwrap())).collect()
    }
}

pub(crate) struct Receiver {
    pub(crate) url: String,
    script: Arc<Mutex<(VecDeque<Answer>, Answer)>>,
    came: Arc<Mutex<Vec<Delivery>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers the first requests by the script and all others by `then`.
    pub(crate) async fn start(script: &[Answer], then: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?of=gate", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new((script.iter().copied().collect::<VecDeque<_>>(), then)));
        let came = Arc::<Mutex<Vec<Delivery>>>::default();
        let (answers, noted) = (script.clone(), came.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, answers.clone(), noted.clone()));
            }
        });
        Self { url, script, came, task }
    }

    /// From now on.
    pub(crate) fn answer(&self, then: Answer) {
        *self.script.lock().unwrap() = (VecDeque::new(), then);
    }

    pub(crate) fn came(&self) -> Vec<Delivery> {
        self.came.lock().unwrap().clone()
    }

    /// Results that were taken, in the order in which they came.
    pub(crate) fn taken(&self) -> Vec<FrameDetections> {
        let taken = self.came().into_iter().filter(|delivery| delivery.taken);
        taken.flat_map(|delivery| delivery.results()).map(|(_, result)| result).collect()
    }

    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        eventually(what, || async { so(self).then_some(()) }).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<(VecDeque<Answer>, Answer)>>, came: Arc<Mutex<Vec<Delivery>>>) {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    assert!(text.starts_with("POST /hook?of=gate HTTP/1.1"), "{text}");
    let headers: HashMap<_, _> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers["content-length"].parse().unwrap();
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer = {
        let mut script = script.lock().unwrap();
        let then = script.1;
        script.0.pop_front().unwrap_or(then)
    };
    let taken = matches!(answer, Answer::Status(200..=299));
    came.lock().unwrap().push(Delivery { headers, body: bytes.split_off(head + 4), taken });
    match answer {
        Answer::Status(status) => {
            let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Answer::Silence => std::future::pending().await,
    }
}
