//! The contracts with a real nats-server: streams, expected sequences, keys used once, readers without gap or repeat.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use async_nats::jetstream;
use futures::TryStreamExt;
use kadr_shared::{
    domain::{Cause, Command, CommandEnvelope, EventData, Fact},
    id::{RunId, RunnerId, ScenarioId},
    inbox, log,
    nats::{Nats, NatsError},
    nodes::{self, LeaderBeat},
    publish::Stored,
    server::{Server, ServerError},
    streams, subjects,
    tail::Tail,
    testkit::{TestServer, eventually},
};

fn gate() -> ScenarioId {
    "gate".parse().unwrap()
}

fn cause(id: &str) -> Cause {
    Cause { input: Some(1), id: id.into() }
}

async fn append(nats: &Nats, scenario: &ScenarioId, last: u64) -> Stored {
    let data = EventData::StopRequested { run: RunId::from_u128(1) };
    log::append(nats, scenario, last, cause("k"), "test".into(), &data).await.unwrap()
}

#[tokio::test]
async fn streams_are_made_once_and_verified_after() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    streams::ensure(&nats).await.unwrap();
    let info = nats.jetstream.get_stream(subjects::EVENTS).await.unwrap().cached_info().clone();
    assert!(info.config.deny_delete && info.config.deny_purge, "the log can't be taken back");
    assert_eq!(info.config.num_replicas, 1);
}

#[tokio::test]
async fn an_inbox_that_was_lost_begins_above_every_input_of_the_log() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let envelope =
        |key: &str| CommandEnvelope { id: key.parse().unwrap(), actor: "test".into(), command: Command::Start };
    assert!(matches!(inbox::send_command(&nats, &gate(), &envelope("k1")).await.unwrap(), Stored::At(1)));
    append(&nats, &gate(), 0).await;
    nats.jetstream.delete_stream(subjects::INBOX).await.unwrap();
    streams::ensure(&nats).await.unwrap();
    let Stored::At(first) = inbox::send_command(&nats, &gate(), &envelope("k2")).await.unwrap() else { panic!() };
    assert!(first > 1_000_000_000_000_000 && first < 1 << 53, "{first}");
    streams::ensure(&nats).await.unwrap();
    assert!(
        matches!(inbox::send_command(&nats, &gate(), &envelope("k3")).await.unwrap(), Stored::At(n) if n == first + 1)
    );
}

/// As a node that has just begun to lead may not know yet what another one has told.
#[tokio::test]
async fn an_end_before_what_was_read_is_asked_for_again_and_believed_if_it_stays_so() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    streams::ensure(&nats).await.unwrap();
    let patience = std::time::Duration::from_secs(10);
    let scenario = gate();
    let (extent, _) = tokio::join!(log::extent(&nats, 1, patience), append(&nats, &scenario, 0));
    assert_eq!(extent.unwrap().last, 1);
    assert_eq!(log::extent(&nats, 2, patience).await.unwrap().last, 1);
}

#[tokio::test]
async fn an_event_is_parsed_the_same_way_with_and_without_a_detour() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let Stored::At(last) = append(&nats, &gate(), 0).await else { panic!() };
    // Another order of fields, one that is not known, an older version.
    let run = RunId::from_u128(1);
    for body in [
        serde_json::json!({ "data": {"run": run}, "x": 1, "cause": {"input": 1, "id": "k"}, "actor": "a", "version": 1 }),
        serde_json::json!({ "version": 1, "cause": {"input": null, "id": "k"}, "actor": "a",
            "data": {"run": run, "attempt": 1, "error": "e", "retry_at": "2026-01-31T12:00:00.000Z"} }),
    ] {
        let kind = if body["data"]["attempt"].is_null() { "activated" } else { "attempt_failed" };
        nats.jetstream.publish(format!("kadr.evt.gate.{kind}"), body.to_string().into()).await.unwrap().await.unwrap();
    }
    let mut tail = log::tail(&nats, last);
    for kind in ["stop_requested", "activated", "attempt_failed"] {
        let entry = tail.next().await;
        let event = log::read(&entry).unwrap();
        let recorded = log::read_data(&entry).unwrap();
        assert_eq!((event.kind.as_str(), recorded.data.kind()), (kind, kind));
        assert_eq!((&event.cause, &event.parse().unwrap()), (&recorded.cause, &recorded.data));
        assert_eq!((event.seq, event.time, &event.scenario), (recorded.seq, recorded.time, &recorded.scenario));
    }
    let bad = serde_json::json!({ "version": 2, "cause": {"input": 1, "id": "k"}, "actor": "a", "data": {"run": run} });
    nats.jetstream.publish("kadr.evt.gate.activated", bad.to_string().into()).await.unwrap().await.unwrap();
    nats.jetstream.publish("kadr.evt.gate.activated", "no".into()).await.unwrap().await.unwrap();
    let (newer, foreign) = (tail.next().await, tail.next().await);
    assert!(matches!(log::read_data(&newer), Err(log::ReadError::Event(_))), "a newer version");
    assert!(matches!(log::read_data(&foreign), Err(log::ReadError::Foreign(_))));
}

#[tokio::test]
async fn a_stream_that_is_another_one_is_named() {
    let server = TestServer::start().await;
    let nats = Nats::connect(server.url(), "test").await.unwrap();
    let other = async_nats::jetstream::stream::Config {
        name: subjects::EVENTS.into(),
        subjects: vec!["kadr.evt.>".into()],
        storage: async_nats::jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    nats.jetstream.create_stream(other).await.unwrap();
    let error = streams::ensure(&nats).await.unwrap_err().to_string();
    assert!(error.contains("KADR_EVENTS") && error.contains("storage"), "{error}");
}

#[tokio::test]
async fn an_append_with_a_stale_sequence_is_a_conflict_for_its_scenario_only() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let Stored::At(first) = append(&nats, &gate(), 0).await else { panic!("an empty log takes it") };
    assert!(matches!(append(&nats, &gate(), 0).await, Stored::Conflict));
    assert!(matches!(append(&nats, &"yard".parse().unwrap(), 0).await, Stored::At(_)), "another scenario's log");
    assert!(matches!(append(&nats, &gate(), first).await, Stored::At(_)));
}

#[tokio::test]
async fn a_key_and_a_fact_are_stored_once() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let command = CommandEnvelope { id: "key-1".parse().unwrap(), actor: "test".into(), command: Command::Start };
    assert!(matches!(inbox::send_command(&nats, &gate(), &command).await.unwrap(), Stored::At(1)));
    let other = CommandEnvelope { command: Command::Stop, ..command.clone() };
    assert!(matches!(inbox::send_command(&nats, &gate(), &other).await.unwrap(), Stored::SubjectFull));
    let found = inbox::find_command(&nats, &gate(), &command.id).await.unwrap();
    assert_eq!(found, Some(inbox::Found { input: 1, command: Some(command) }), "the first one stays");
    assert_eq!(inbox::find_command(&nats, &gate(), &"key-2".parse().unwrap()).await.unwrap(), None);

    let (run, runner) = (RunId::generate(), RunnerId::generate());
    let fact = Fact::Claimed { start: 7 };
    assert!(matches!(inbox::send_fact(&nats, &gate(), run, &runner, 0, fact.clone()).await.unwrap(), Stored::At(_)));
    assert!(matches!(inbox::send_fact(&nats, &gate(), run, &runner, 0, fact).await.unwrap(), Stored::SubjectFull));
}

#[tokio::test]
async fn a_reader_sees_each_event_once_and_in_order_while_they_are_written() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let mut tail = log::tail_of(&nats, &gate(), 0);
    let mut last = 0;
    for _ in 0..50 {
        match append(&nats, &gate(), last).await {
            Stored::At(seq) => last = seq,
            other => panic!("{other:?}"),
        }
        append(&nats, &"yard".parse().unwrap(), 0).await;
    }
    let mut seen = 0;
    for _ in 0..50 {
        let entry = tail.next().await;
        assert!(entry.seq > seen);
        seen = entry.seq;
        assert_eq!(log::read(&entry).unwrap().scenario, gate());
    }
    assert_eq!(seen, last);
    // A reader that begins in the middle, before anything is there, sees nothing older.
    let mut later = log::tail_of(&nats, &gate(), last + 1);
    append(&nats, &gate(), last).await;
    assert!(later.next().await.seq > last);
}

#[tokio::test]
async fn a_reader_goes_on_without_gap_or_repeat_when_its_consumer_is_taken_away() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let mut tail = log::tail(&nats, 1);
    let mut last = 0;
    for _ in 0..5 {
        for _ in 0..3 {
            match append(&nats, &gate(), last).await {
                Stored::At(seq) => last = seq,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(tail.next().await.seq, last - 2);
        // Two more are on their way, or not.
        let stream = nats.jetstream.get_stream(subjects::EVENTS).await.unwrap();
        let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
        for name in names {
            stream.delete_consumer(&name).await.unwrap();
        }
        assert_eq!(tail.next().await.seq, last - 1);
        assert_eq!(tail.next().await.seq, last);
    }
}

/// As while a cluster has lost the leader of its metadata.
#[tokio::test]
async fn a_reader_goes_on_while_no_consumer_can_be_made() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let config = jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept.>".into()],
        max_consumers: 1,
        ..Default::default()
    };
    let stream = nats.jetstream.create_stream(config).await.unwrap();
    let only = jetstream::consumer::pull::Config { durable_name: Some("only".into()), ..Default::default() };
    stream.create_consumer(only).await.unwrap();
    let mut tail = Tail::new(nats.jetstream.clone(), "KEPT", "kept.some.>", 1);
    for number in 0..40 {
        let subject = if number % 4 == 3 { "kept.others" } else { "kept.some.1" };
        nats.jetstream.publish(subject, number.to_string().into()).await.unwrap().await.unwrap();
    }
    let mut found = Vec::new();
    for _ in 0..20 {
        found.push(tail.next().await.seq);
    }
    // And by a consumer again, without gap or repeat.
    stream.delete_consumer("only").await.unwrap();
    for _ in 20..30 {
        found.push(tail.next().await.seq);
    }
    assert_eq!(found, (1..=40).filter(|seq| seq % 4 != 0).collect::<Vec<u64>>());
    // Only a consumer knows that there is nothing behind a message.
    for seq in 41.. {
        nats.jetstream.publish("kept.some.2", "".into()).await.unwrap().await.unwrap();
        let entry = tail.next().await;
        assert_eq!(entry.seq, seq);
        if entry.pending == 0 {
            break;
        }
    }
}

#[tokio::test]
async fn the_leaders_key_is_held_renewed_and_expires() {
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let me = LeaderBeat { orchestrator: "a".into(), trouble: None };
    let other = LeaderBeat { orchestrator: "b".into(), trouble: None };
    let free = nodes::read_leader(&nats).await.unwrap();
    assert_eq!(free.holder, None);
    let held = nodes::claim_leader(&nats, &me, free.revision).await.unwrap().unwrap();
    assert_eq!(nodes::claim_leader(&nats, &other, free.revision).await.unwrap(), None, "it is held");
    let renewed = nodes::claim_leader(&nats, &me, held).await.unwrap().unwrap();
    assert_eq!(nodes::read_leader(&nats).await.unwrap().holder, Some(me));
    let expired = eventually("the key expires when it is not renewed", async || {
        nodes::read_leader(&nats).await.filter(|key| key.holder.is_none())
    })
    .await;
    assert!(expired.revision > renewed, "a marker stands in its place");
    assert!(nodes::claim_leader(&nats, &other, expired.revision).await.unwrap().is_some());
}

#[tokio::test]
async fn no_server_is_said_plainly() {
    let error = Nats::connect("nats://me:secret@127.0.0.1:1", "test").await.unwrap_err();
    assert!(matches!(error, NatsError::Connect { .. }));
    assert!(error.to_string().contains("127.0.0.1:1") && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn of_several_addresses_one_has_to_answer() {
    let server = TestServer::start().await;
    Nats::connect(&format!("nats://127.0.0.1:1,{}", server.url()), "test").await.unwrap();
    for bad in ["", "nats://a b", "nats://a:1,", "http://a:x"] {
        assert!(matches!(Nats::connect(bad, "test").await, Err(NatsError::Address { .. })), "{bad}");
    }
}

#[tokio::test]
async fn a_port_in_use_and_a_folder_in_use_are_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let error = Server::start(folder.path(), port).await.unwrap_err().to_string();
    assert!(error.contains("address already in use"), "{error}");

    let server = TestServer::start().await;
    let error = Server::start(server.folder(), 0).await.unwrap_err();
    assert!(matches!(error, ServerError::Busy { pid, .. } if pid == server.pid()), "{error}");
}

#[tokio::test]
async fn watching_a_server_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), 0).await.unwrap();
    let url = server.url().to_owned();
    tokio::select! {
        () = server.ended() => panic!("it ended"),
        connected = Nats::connect(&url, "test") => { connected.unwrap(); }
    }
    Nats::connect(&url, "test").await.expect("it lives on");
    server.stop().await;
}

#[tokio::test]
async fn a_server_of_ones_own_ends_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 0).await.unwrap();
    let pid = server.pid();
    let lives = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert!(lives());
    // Not stopped but dropped, as when its owner dies.
    drop(server);
    eventually("the server ends", async || (!lives()).then_some(())).await;
}
