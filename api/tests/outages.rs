//! A NATS server that goes and comes back, or has no room left: what is told, and that work goes on by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use async_nats::jetstream::{message::PublishMessage, stream};
use common::{Answer, Orchestrator, RunningApi, append, eventually_get, lead, read_state};
use kadr_shared::{
    domain::{Cause, EventData},
    nats::Nats,
    nodes::{self, Progress, RunnerBeat},
    publish::publish,
    server::Server,
    streams,
    testkit::eventually,
};
use serde_json::json;
use tempfile::TempDir;

/// A server that can be stopped and started again at the same address, and an API that goes on meanwhile.
struct World {
    api: RunningApi,
    nats: Nats,
    server: Option<Server>,
    port: u16,
    folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = TempDir::with_prefix("kadr-outage-").unwrap();
        let server = Server::start(&folder.path().join("nats"), 0).await.unwrap();
        let port = server.url().rsplit_once(':').unwrap().1.parse().unwrap();
        let nats = Nats::connect(server.url(), "test").await.unwrap();
        streams::ensure(&nats).await.unwrap();
        let api = RunningApi::start(nats.clone(), &folder.path().join("api")).await;
        Self { api, nats, server: Some(server), port, folder }
    }

    /// Stops the server, and waits until the API has seen it.
    async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
        eventually("it is told", || async {
            let answer = self.api.get("/health/ready").await;
            (answer.status == 503 && answer.text.contains("disconnected")).then_some(())
        })
        .await;
    }

    async fn start_again(&mut self) {
        self.server = Some(Server::start(&self.folder.path().join("nats"), self.port).await.unwrap());
    }
}

/// A server of the test's own configuration, at a given port and on the data of another.
struct Small(Child);

impl Small {
    fn start(config: &str, folder: &Path, port: u16) -> Self {
        let file = folder.join("small.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(&file).args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]);
        command.arg(folder.join("jetstream")).arg("-l").arg(folder.join("small.log"));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_command_that_comes_while_the_server_restarts_is_carried_out_once() {
    let mut world = World::start().await;
    let _orchestrator = Orchestrator::start(world.nats.clone());
    world.api.create("gate").await.json(201);
    world.api.ready().await;
    // A machine that is busy with other things may take longer to restart a server than a command waits.
    let mut keys = Vec::new();
    let key = loop {
        assert!(keys.len() < 10, "no command outlived a restart");
        world.stop().await;
        let key = format!("k{}", keys.len());
        keys.push(key.clone());
        let (address, sent) = (world.api.address(), key.clone());
        let command = tokio::spawn(async move {
            let request = reqwest::Client::new().post(format!("http://{address}/v1/scenarios/gate/commands"));
            Answer::of(request.header("Idempotency-Key", sent).json(&json!({"command": "start"}))).await
        });
        world.start_again().await;
        let answer = command.await.unwrap();
        if answer.status == 202 {
            break key;
        }
        let detail = answer.problem(503, "unavailable");
        assert!(detail.contains(&format!("Idempotency-Key: {key}")), "{detail}");
    };
    let (api, last) = (&world.api, keys.last().unwrap());
    // Readers take a while to go on after a restart.
    eventually("it is answered", || async {
        let answer = api.command("gate", last, "start").await;
        // An earlier one may have come through after all.
        (answer.status == 409 || answer.status == 202 && !answer.json(202)["accepted_at_seq"].is_null()).then_some(())
    })
    .await;
    let events = api.get("/v1/scenarios/gate/events").await.json(200);
    let events = events["events"].as_array().unwrap();
    let answers = events.iter().filter(|e| e["cause"]["id"] == key.as_str()).count();
    let starts = events.iter().filter(|e| e["type"] == "start_requested").count();
    assert_eq!((answers, starts), (1, 1), "{events:?}");
}

#[tokio::test]
async fn what_the_server_has_no_room_for_is_told_and_goes_on_when_there_is() {
    let mut world = World::start().await;
    let orchestrator = Orchestrator::start(world.nats.clone());
    world.api.create("gate").await.json(201);
    let filler = stream::Config { name: "FILL".into(), subjects: vec!["fill".into()], ..Default::default() };
    world.nats.jetstream.create_stream(filler).await.unwrap();
    world.stop().await;
    let config = "max_payload: 8MB\njetstream { max_file_store: 3MB, max_memory_store: 64MB }\n";
    let _small = Small::start(config, &world.folder.path().join("nats"), world.port);
    let filler =
        eventually("the server is there again", || async { world.nats.jetstream.get_stream("FILL").await.ok() }).await;
    let said = loop {
        let message = PublishMessage::build().payload(vec![0; 200_000].into());
        if let Err(error) = publish(&world.nats.jetstream, "fill".into(), message).await {
            break std::error::Error::source(&error.source).unwrap().to_string();
        }
    };
    assert!(said.contains("insufficient"), "{said}");

    let (api, key) = (&world.api, "k1");
    let detail = api.command("gate", key, "start").await.problem(503, "not_stored");
    for words in [said.trim(), "Nothing was changed", "Idempotency-Key: k1"] {
        assert!(detail.contains(words), "{words}: {detail}");
    }
    let ready = api.get("/health/ready").await.json(503);
    let refused = ready["storage"]["refused"].as_str().unwrap();
    assert!(refused.contains(said.trim()), "{ready}");
    assert!(ready["status"].as_str().unwrap().contains(refused), "{ready}");

    filler.purge().await.unwrap();
    // Readers take a while to go on after a restart.
    let seq = eventually("it is answered", || async {
        api.command("gate", key, "start").await.json(202)["accepted_at_seq"].as_u64()
    })
    .await;
    assert_eq!(seq, 2, "as if nothing had been");
    let ready = api.get("/health/ready").await;
    let body: serde_json::Value = serde_json::from_str(&ready.text).unwrap();
    assert_eq!(body["storage"]["refused"], json!(null));
    drop(orchestrator);
}

#[tokio::test]
async fn it_is_told_that_nobody_leads_and_what_troubles_who_does() {
    let world = World::start().await;
    let (api, nats) = (&world.api, &world.nats);
    let told = async |words: &str| {
        eventually(words, || async {
            let answer = api.get("/health/ready").await;
            answer.text.contains(words).then(|| answer.json(503))
        })
        .await
    };
    let nobody = told("no orchestrator leads").await;
    assert_eq!(nobody["orchestrator"], json!({"leader": null, "trouble": null}));
    let trouble = "can't write the log: no space left on device";
    let leading = tokio::spawn(lead(nats.clone(), Some(trouble.to_owned())));
    let troubled = told(trouble).await;
    assert_eq!(troubled["orchestrator"], json!({"leader": "stand-in", "trouble": trouble}));
    leading.abort();
    told("no orchestrator leads").await;
    let _leading = tokio_util::sync::CancellationToken::new().drop_guard();
    let leading = tokio::spawn(lead(nats.clone(), None));
    api.ready().await;
    leading.abort();

    nats.jetstream.delete_stream("KADR_INBOX").await.unwrap();
    let missing = told("does not have the inbox").await;
    assert_eq!(missing["storage"]["inbox"], "missing");
}

#[tokio::test]
async fn live_numbers_come_back_after_a_restart_of_the_server() {
    let mut world = World::start().await;
    let orchestrator = Orchestrator::start(world.nats.clone());
    let gate = "gate".parse().unwrap();
    world.api.create("gate").await.json(201);
    world.api.command("gate", "k1", "start").await.json(202);
    let state = read_state(&world.nats, &gate).await;
    let run = state.run.as_ref().unwrap().id;
    let cause = || Cause { input: None, id: "test".into() };
    let assigned = EventData::RunnerAssigned { run, attempt: 1, runner: "r1".parse().unwrap() };
    let state = append(&world.nats, &gate, state, cause(), "test", &assigned).await;
    let fence = state.seq;
    append(&world.nats, &gate, state, cause(), "test", &EventData::Activated { run }).await;
    let beat = |frames| {
        let scenario = Progress {
            scenario: "gate".parse().unwrap(),
            run,
            fence,
            frames,
            of: None,
            dropped: 0,
            source_fps: None,
            analysed_fps: Some(25.0),
            last_frame_at: None,
            camera: None,
            trouble: None,
        };
        RunnerBeat { runner: "r1".parse().unwrap(), capacity: 1, free: 0, scenarios: vec![scenario] }
    };
    // So many that the new bucket's sequences stay below the old one's as long as it is waited for.
    const BEATS: u64 = 2000;
    for n in 0..BEATS {
        nodes::renew_runner(&world.nats, &beat(n)).await.unwrap();
    }
    eventually_get(&world.api, "/v1/scenarios/gate", |s| s["progress"]["frame"] == BEATS - 1).await;

    world.stop().await;
    eventually_get(&world.api, "/v1/scenarios/gate", |s| s["health"]["analysed_fps"].is_null()).await;
    world.start_again().await;
    let api = &world.api;
    let looks = std::cell::Cell::new(0);
    eventually("the numbers are back", || async {
        looks.set(looks.get() + 1);
        // About as often as a runner does.
        if looks.get() % 10 == 1 {
            let _ = nodes::renew_runner(&world.nats, &beat(9999)).await;
        }
        (api.get("/v1/scenarios/gate").await.json(200)["progress"]["frame"] == 9999).then_some(())
    })
    .await;
    drop(orchestrator);
}
