//! The system on a cluster of three NATS nodes.

use kadr_shared::subjects;

use crate::support::{
    clips::plain,
    cluster::Cluster,
    home::Home,
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
