//! Memory over many reconnects: a camera that goes away and comes back again and again, while somebody watches.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use kadr_shared::testkit::TestCamera;
use serde_json::json;
use tokio::process::Command;

use super::{System, print, system::fixtures};

/// How long the camera plays, and is away. Just long enough to count as steady, so that it is tried again at once: some 150
/// reconnects an hour, which a bad camera takes a working day for.
const PLAYS: Duration = Duration::from_secs(21);
const AWAY: Duration = Duration::from_secs(1);

pub(crate) async fn measure() {
    let minutes = std::env::var("MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(60.0);
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let system = System::start().await;
    let clip = fixtures().join("clips/persons.mp4");
    let mut camera = TestCamera::start(&clip, 1, None, None);
    let settings = json!({"source": {"url": camera.url()}, "model": "yolov8n", "preprocess": {"fps": 2}, "outputs": {"record": {"keep_bytes": 50_000_000}}});
    system.run("soak", settings).await;
    let live = format!("{}/v1/scenarios/soak/live.mp4", system.api);
    let watch = || {
        let mut player = Command::new("ffmpeg");
        player.args(["-nostdin", "-v", "quiet", "-i", &live, "-f", "null", "-"]).stdout(Stdio::null());
        player.kill_on_drop(true).spawn().unwrap()
    };
    let mut player = watch();
    let (mut outages, mut players) = (0, 1);
    let mut told = Instant::now();
    let nats = async_nats::connect(&system.nats).await.unwrap();
    let jetstream = async_nats::jetstream::new(nats);
    let line = async |outages: u32, players: u32| {
        let [kadr, nats] = system.memory();
        // What the server has to hold, beside what its memory is.
        let held = jetstream.query_account().await.unwrap();
        let camera = &system.get("soak").await["health"]["camera"];
        print(json!({
            "figure": "soak", "outages": outages, "reconnects": camera["reconnects"], "players": players,
            "kadr_memory_mb": kadr, "nats_memory_mb": nats, "nats_consumers": held.consumers,
            "nats_in_memory_mb": held.memory / 1_000_000, "nats_on_disk_mb": held.storage / 1_000_000,
        }));
    };
    line(outages, players).await;
    while Instant::now() < end {
        tokio::time::sleep(PLAYS).await;
        let port = camera.port();
        drop(camera);
        tokio::time::sleep(AWAY).await;
        camera = TestCamera::start(&clip, 1, Some(port), None);
        outages += 1;
        // A player may give up; another one takes its place.
        if player.try_wait().unwrap().is_some() {
            players += 1;
            player = watch();
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            line(outages, players).await;
        }
    }
    line(outages, players).await;
    print(json!({"figure": "soak_end", "health": system.get("soak").await["health"]}));
}
