//! The system on a cluster of three NATS nodes.

use kadr_shared::{subjects, testkit::eventually};
use serde_json::json;

use crate::support::{
    clips::plain,
    cluster::Cluster,
    home::Home,
    http,
    lines::{WHOLE_RUN, types},
    process::{Process, running},
    store::{each_frame_once, happened, log_of},
    up::Up,
};

#[tokio::test]
async fn on_three_nodes_streams_have_three_copies_and_a_file_is_analysed() {
    let (cluster, nats) = Cluster::start().await;
    for stream in [subjects::INBOX, subjects::EVENTS, subjects::FRAMES, subjects::DETECTIONS, subjects::NODES_STREAM] {
        let info = nats.jetstream.get_stream(stream).await.unwrap().cached_info().clone();
        assert_eq!(info.config.num_replicas, 3, "{stream}");
        assert_eq!(info.cluster.unwrap().replicas.len(), 2, "{stream} has a leader and two followers");
    }
    let home = Home::new();
    plain(&home, "clip.mp4", 20);
    for (id, address) in [("all", cluster.urls.join(",")), ("one", cluster.urls[1].clone())] {
        let options = ["up", "--listen", "127.0.0.1:0", "--data", "data", "--nats", &address];
        let up = Up::of(Process::start(&mut home.command(options))).await;
        up.create(&home, id, "clip.mp4").await;
        up.kadr(&home, &format!("scenario start {id}")).await.success();
        happened(&nats, id, "deactivated").await;
        each_frame_once(&nats, id, 20).await;
        assert_eq!(types(&log_of(&nats, id).await), WHOLE_RUN);
        up.process.stop().await.success();
    }
    assert!(cluster.nodes.iter().all(|node| running(node.pid())));
}

#[tokio::test]
async fn without_a_quorum_it_is_told_and_a_command_is_carried_out_once_when_there_is_one_again() {
    let (cluster, _nats) = Cluster::start().await;
    let home = Home::new();
    plain(&home, "clip.mp4", 20);
    let options = ["up", "--listen", "127.0.0.1:0", "--data", "data", "--nats", &cluster.urls[0]];
    let up = Up::of(Process::start(&mut home.command(options))).await;
    up.create(&home, "gate", "clip.mp4").await;
    let ready = format!("{}/health/ready", up.api);
    eventually("all is well", || async { (http::get(&ready).await.status == 200).then_some(()) }).await;

    cluster.nodes[1..].iter().for_each(|node| node.signal("STOP"));
    let told = eventually("that too few nodes are there", || async {
        let answer = http::get(&ready).await;
        (answer.body["storage"]["log"] != "ok" && answer.body["storage"]["inbox"] != "ok").then_some(answer)
    })
    .await;
    assert_eq!((told.status, &told.body["nats"]), (503, &json!("connected")), "{told:?}");
    assert!(told.body["status"].as_str().unwrap().contains("too few of its nodes"), "{told:?}");
    let stop = || async {
        http::post(&format!("{}/v1/scenarios/gate/commands", up.api), Some("k1"), &json!({"command": "stop"})).await
    };
    let unanswered = stop().await;
    unanswered.problem(503, "unavailable");
    assert!(unanswered.body["detail"].as_str().unwrap().contains("Idempotency-Key: k1"), "{unanswered:?}");

    cluster.nodes[1..].iter().for_each(|node| node.signal("CONT"));
    eventually("the command is decided", || async { (stop().await.status == 409).then_some(()) }).await;
    stop().await.problem(409, "not_running");
    let log = http::get(&format!("{}/v1/scenarios/gate/events", up.api)).await.body;
    assert_eq!(types(log["events"].as_array().unwrap()), ["scenario_created", "command_refused"], "{log}");
    eventually("all is well again", || async { (http::get(&ready).await.status == 200).then_some(()) }).await;
    up.process.stop().await.success();
}
