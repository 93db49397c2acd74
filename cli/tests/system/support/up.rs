//! `kadr up`, and commands to it.

use super::{
    home::{Home, MODEL},
    process::{Ended, Process},
};

pub(crate) struct Up {
    pub(crate) process: Process,
    /// The API's address: `http://127.0.0.1:PORT`.
    pub(crate) api: String,
    /// NATS' address.
    pub(crate) nats: String,
}

impl Up {
    /// On free ports, with its data in the home's folder `data`.
    pub(crate) async fn start(home: &Home) -> Self {
        let options = ["up", "--listen", "127.0.0.1:0", "--rtsp", "127.0.0.1:0", "--data", "data"];
        Self::of(Process::start(&mut home.command(options))).await
    }

    /// Waits until it has told where it is.
    pub(crate) async fn of(process: Process) -> Self {
        let rest = process.line_after("REST").await;
        let api = rest.strip_suffix("/v1/scenarios").unwrap().to_owned();
        let nats = process.line_after("NATS  ").await;
        Self { process, api, nats }
    }

    /// The address of a scenario's video by RTSP.
    pub(crate) async fn rtsp(&self, id: &str) -> String {
        self.process.line_after("RTSP").await.replace("{id}", id)
    }

    /// Runs a command that talks to its API.
    pub(crate) async fn kadr(&self, home: &Home, arguments: &str) -> Ended {
        home.kadr(&format!("{arguments} --api {}", self.api)).await
    }

    /// Creates a scenario of a file with the tiny model.
    pub(crate) async fn create(&self, home: &Home, id: &str, file: &str) {
        create(home, &self.api, id, file).await;
    }
}

/// Creates a scenario of a file with the tiny model, by an input that takes some time, and without a video.
pub(crate) async fn create(home: &Home, api: &str, id: &str, file: &str) {
    let options = format!("--model {MODEL} --input-size 640x640 --no-video --api {api}");
    home.kadr(&format!("scenario create {id} --source {file} {options}")).await.success();
}
