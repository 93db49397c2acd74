//! The service as a whole: start, end, readiness, the document, and the read model's rebuilding.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Orchestrator, RunningApi, World, append, config, eventually_get};
use kadr_api::{Api, ApiError, ProblemName};
use kadr_shared::{
    domain::{Cause, EventData, State},
    publish::{Stored, publish},
    streams, subjects,
    testkit::{TestServer, eventually},
};
use serde_json::{Value, json};

/// A hundred events of three scenarios; what is answered then.
async fn history(world: &World) -> Vec<String> {
    let api = &world.api;
    for id in ["a", "b", "c"] {
        api.create(id).await.json(201);
    }
    for n in 0..20 {
        let id = ["a", "b"][n % 2];
        api.command(id, &format!("start-{n}"), "start").await.json(202);
        api.command(id, &format!("stop-{n}"), "stop").await.json(202);
    }
    assert_eq!(api.delete("/v1/scenarios/c").await.status, 204);
    api.ready().await;
    answers(api).await
}

async fn answers(api: &RunningApi) -> Vec<String> {
    let mut all = Vec::new();
    for path in ["/v1/scenarios", "/v1/scenarios/a", "/v1/scenarios/b", "/v1/scenarios/c", "/v1/scenarios/a/events"] {
        all.push(api.get(path).await.text);
    }
    // Outcomes are part of what is rebuilt: a repeat gets the old answer.
    all.push(api.command("a", "start-0", "start").await.text);
    all
}

#[tokio::test]
async fn deleted_tables_are_rebuilt_from_the_log() {
    let (world, _orchestrator) = World::start().await;
    let before = history(&world).await;
    let World { api, folder, nats, server: _server } = world;
    api.stop().await;

    let api = RunningApi::start(nats.clone(), folder.path()).await;
    api.ready().await;
    assert_eq!(answers(&api).await, before, "after a restart");
    api.stop().await;

    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path().join(format!("api.sqlite3{suffix}")));
    }
    let api = RunningApi::start(nats.clone(), folder.path()).await;
    api.ready().await;
    assert_eq!(answers(&api).await, before, "after the tables were deleted");
    api.stop().await;

    std::fs::write(folder.path().join("api.sqlite3"), "no database").unwrap();
    let api = RunningApi::start(nats, folder.path()).await;
    api.ready().await;
    assert_eq!(answers(&api).await, before, "after the tables were damaged");
    assert!(folder.path().join("api.sqlite3.broken").exists());
}

#[tokio::test]
async fn another_servers_log_takes_the_place_of_the_first() {
    let (world, orchestrator) = World::start().await;
    history(&world).await;
    drop(orchestrator);
    let World { api, folder, server, .. } = world;
    api.stop().await;
    drop(server);

    let server = TestServer::start().await;
    let nats = server.nats().await;
    let _orchestrator = Orchestrator::start(nats.clone());
    let api = RunningApi::start(nats, folder.path()).await;
    api.ready().await;
    assert_eq!(api.get("/v1/scenarios").await.json(200), json!({"scenarios": [], "next": null, "seq": 0}));
    assert_eq!(api.create("gate").await.json(201)["seq"], 1);
}

#[tokio::test]
async fn a_log_that_is_recreated_under_a_running_api_is_followed_from_its_beginning() {
    let world = World::without_orchestrator().await;
    let (api, nats) = (&world.api, &world.nats);
    let created = |url: &str| {
        let settings = serde_json::from_value(json!({"source": {"url": url}})).unwrap();
        EventData::ScenarioCreated { settings, generation: 1 }
    };
    let cause = || Cause { input: None, id: "test".into() };
    let (old, new) = ("old".parse().unwrap(), "new".parse().unwrap());
    append(nats, &old, State::default(), cause(), "test", &created("/a")).await;
    eventually_get(api, "/v1/scenarios/old", |s| s["id"] == "old").await;

    nats.jetstream.delete_stream(subjects::EVENTS).await.unwrap();
    streams::ensure(nats).await.unwrap();
    append(nats, &new, State::default(), cause(), "test", &created("/b")).await;
    let list = eventually_get(api, "/v1/scenarios", |l| l["scenarios"][0]["id"] == "new").await;
    assert_eq!(list["scenarios"].as_array().unwrap().len(), 1, "the old log's scenarios are gone");
}

#[tokio::test]
async fn an_event_of_the_future_stops_the_projection_and_readiness_says_so() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    let body = json!({"version": 99, "cause": {"input": null, "id": "x"}, "actor": "future", "data": {}});
    let message = async_nats::jetstream::message::PublishMessage::build().payload(body.to_string().into());
    let subject = subjects::event(&"gate".parse().unwrap(), "activated");
    let Stored::At(seq) = publish(&world.nats.jetstream, subject, message).await.unwrap() else { panic!("not stored") };

    let answer = eventually("it is told", || async {
        let answer = api.get("/health/ready").await;
        answer.text.contains("has stopped").then_some(answer)
    })
    .await
    .json(503);
    let status = answer["status"].as_str().unwrap();
    assert!(status.contains("version 99") && status.contains("newer kadr"), "{status}");
    assert_eq!(answer["projection"], json!({"seq": seq - 1, "of": seq}), "it was not skipped");
    assert_eq!(api.get("/v1/scenarios/gate").await.json(200)["seq"], seq - 1, "what is known is still served");
    assert_eq!(api.get("/health/live").await.json(200), json!({"status": "live"}));
}

#[tokio::test]
async fn tables_that_take_nothing_are_told_and_tried_again() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.folder.path().join("api.sqlite3"));
    let tables = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no room on the disk'); END";
    sqlx::query(full).execute(&tables).await.unwrap();

    let answer = api.command("gate", "k1", "start").await.json(202);
    assert_eq!(answer["accepted_at_seq"], json!(null), "it is stored, and its answer can't be seen");
    let told = eventually("it is told", || async {
        let answer = api.get("/health/ready").await;
        answer.text.contains("no room on the disk").then_some(answer)
    })
    .await;
    told.json(503);
    assert_eq!(api.get("/v1/scenarios/gate").await.json(200)["state"], "inactive", "nothing is half done");

    sqlx::query("DROP TRIGGER full").execute(&tables).await.unwrap();
    eventually_get(api, "/v1/scenarios/gate", |s| s["state"] == "init_startup").await;
    assert_eq!(api.command("gate", "k1", "start").await.json(202)["accepted_at_seq"], 2);
    api.ready().await;
}

#[tokio::test]
async fn without_nats_commands_are_unavailable_and_answers_still_come() {
    let (world, orchestrator) = World::start().await;
    world.api.create("gate").await.json(201);
    let ready = world.api.ready().await.json(200);
    assert_eq!(
        ready,
        json!({"status": "ready", "nats": "connected", "orchestrator": {"leader": "stand-in", "trouble": null},
               "projection": {"seq": 1, "of": 1}, "storage": {"log": "ok", "inbox": "ok", "refused": null}})
    );
    drop(orchestrator);
    let World { api, folder: _folder, server, .. } = world;
    drop(server);

    let answer = eventually("it is told", || async {
        let answer = api.get("/health/ready").await;
        (answer.status == 503 && answer.text.contains("disconnected")).then_some(answer)
    })
    .await
    .json(503);
    let begun = Instant::now();
    let detail = api.command("gate", "k1", "start").await.problem(503, "unavailable");
    assert!(detail.contains("NATS") && detail.contains("Idempotency-Key: k1"), "{detail}");
    assert!(begun.elapsed() < Duration::from_secs(10), "in bounded time");
    assert_eq!(answer["projection"], json!({"seq": 1, "of": null}));
    assert_eq!(answer["storage"], json!({"log": "unknown", "inbox": "unknown", "refused": null}));
    assert_eq!(api.get("/v1/scenarios/gate").await.json(200)["id"], "gate");
    assert_eq!(api.get("/health/live").await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_unavailable_and_a_repeat_does_not_start_twice() {
    let (world, _orchestrator) = World::start().await;
    let api = &world.api;
    api.create("gate").await.json(201);
    let signal = |name: &str| {
        // The shell's own `kill`: the program is not on every machine.
        let kill = format!("kill {name} {}", world.server.pid());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    };
    signal("-STOP");
    let begun = Instant::now();
    let answer = api.command("gate", "k1", "start").await;
    let ready = api.get("/health/ready").await;
    let took = begun.elapsed();
    signal("-CONT");
    answer.problem(503, "unavailable");
    assert!(took < Duration::from_secs(15), "in bounded time: {took:?}");
    // It does not answer, or is given up already.
    let status = ready.json(503)["status"].as_str().unwrap().to_owned();
    assert!(status.contains("end of the log") || status.contains("connection to NATS is lost"), "{status}");

    api.ready().await;
    // Whether the first was stored nobody knew; the repeat finds out.
    let repeated = api.command("gate", "k1", "start").await.json(202);
    assert_eq!(api.command("gate", "k1", "start").await.json(202), repeated);
    let events = api.get("/v1/scenarios/gate/events").await.json(200);
    assert_eq!(events["events"].as_array().unwrap().len(), 2, "created, started once: {events}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::without_orchestrator().await;
    let mut config = config(world.folder.path());
    config.listen = world.api.address();
    let Err(error) = Api::bind(config, world.nats.clone()).await else { panic!("the port is in use") };
    assert!(matches!(error, ApiError::AddressInUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&world.api.address().to_string()) && text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn a_folder_that_can_not_be_one_is_named() {
    let world = World::without_orchestrator().await;
    let file = world.folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let api = Api::bind(config(&file.join("data")), world.nats.clone()).await.unwrap();
    let error = api.run(tokio_util::sync::CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("file/data") && error.contains("--data"), "{error}");
}

#[tokio::test]
async fn the_document_names_every_route_and_every_problem() {
    let world = World::without_orchestrator().await;
    let answer = world.api.get("/openapi.json").await;
    let document = answer.json(200);
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            routes.push(format!("{method} {path}"));
            assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let content = &response["content"];
                let problem = status.starts_with(['4', '5']) && !path.starts_with("/health");
                assert!(!problem || content["application/problem+json"].is_object(), "{method} {path} {status}");
            }
        }
    }
    routes.sort();
    assert_eq!(
        routes,
        [
            "delete /v1/scenarios/{id}",
            "get /health/live",
            "get /health/ready",
            "get /v1/discover",
            "get /v1/scenarios",
            "get /v1/scenarios/{id}",
            "get /v1/scenarios/{id}/clip",
            "get /v1/scenarios/{id}/detections",
            "get /v1/scenarios/{id}/detections/live",
            "get /v1/scenarios/{id}/events",
            "get /v1/scenarios/{id}/history",
            "get /v1/scenarios/{id}/live",
            "get /v1/scenarios/{id}/live.m3u8",
            "get /v1/scenarios/{id}/live.mjpeg",
            "get /v1/scenarios/{id}/live.mp4",
            "get /v1/scenarios/{id}/live/{part}",
            "get /v1/scenarios/{id}/recordings",
            "post /v1/scenarios",
            "post /v1/scenarios/{id}/commands",
            "post /v1/scenarios/{id}/frames",
            "put /v1/scenarios/{id}",
        ]
    );
    for name in ProblemName::ALL {
        let own = matches!(name, ProblemName::NoSuchRoute | ProblemName::MethodNotAllowed);
        assert!(own || answer.text.contains(name.as_str()), "{name} is documented");
    }
    let settings = &document["components"]["schemas"]["Settings"];
    assert_eq!(settings["required"], json!(["source"]));
    assert_eq!(document["components"]["schemas"]["Analysis"]["properties"]["confidence"]["default"], json!(0.25));
}

#[tokio::test]
async fn the_page_is_there_and_loads_nothing_from_outside() {
    let world = World::without_orchestrator().await;
    let root = world.api.get("/").await;
    assert_eq!((root.status, root.location.as_deref()), (303, Some("/docs")));
    let page = world.api.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.content_type.starts_with("text/html"), "{}", page.content_type);
    // The scripts stand in the page itself: the markup outside of them refers to nothing.
    let mut rest = page.text.as_str();
    let mut markup = String::new();
    for (open, close) in [("<style", "</style>"), ("<script", "</script>"), ("<script", "</script>")] {
        let (before, inner) = rest.split_once(open).unwrap();
        markup.push_str(before);
        assert!(!inner[..inner.find('>').unwrap()].contains("src"), "scripts are inline");
        rest = &inner[inner.rfind(close).filter(|_| rest.matches(open).count() == 1).or(inner.find(close)).unwrap()..];
    }
    markup.push_str(rest);
    assert!(!markup.contains("http://") && !markup.contains("https://") && !markup.contains("src="), "{markup}");
    let _: Value = world.api.get("/openapi.json").await.json(200);
}

#[tokio::test]
async fn it_ends_in_order_while_somebody_waits() {
    let world = World::without_orchestrator().await;
    let World { api, folder: _folder, nats, server: _server } = world;
    let address = api.address();
    let waiting = tokio::spawn(async move {
        let request = reqwest::Client::new().post(format!("http://{address}/v1/scenarios/gate/commands"));
        request.json(&json!({"command": "start"})).send().await.unwrap().status().as_u16()
    });
    // The request is under way once its command is stored.
    eventually("the command is stored", || async {
        let stream = nats.jetstream.get_stream(subjects::INBOX).await.ok()?;
        (stream.cached_info().state.messages == 1).then_some(())
    })
    .await;
    api.stop().await;
    assert_eq!(waiting.await.unwrap(), 202, "what was under way got its answer");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
