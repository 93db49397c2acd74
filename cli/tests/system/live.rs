//! Live video as people watch it: a real camera in, and real players on what comes out, whose pixels show the boxes.

use std::{path::Path, process::Stdio, time::Duration};

use futures::StreamExt;
use kadr_shared::{
    nats::Nats,
    subjects,
    testkit::{PATIENCE, TestCamera, eventually},
};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::support::{
    browser::Browser,
    clips::filmed,
    home::{Home, MODEL},
    http,
    store::{at_least, happened, recorded},
    up::Up,
};

/// Pictures that nothing but a box or a caption makes bright or colourful.
const GREY: &str = "testsrc2=s=320x240:r=25:d=4,hue=s=0,eq=contrast=0.4:brightness=-0.1";
const CODED: &str = "-c:v libx264 -bf 0 -g 25 -pix_fmt yuv420p";

/// A camera of grey pictures, in which the tiny model finds something all the same.
fn camera(home: &Home, port: Option<u16>) -> TestCamera {
    if !home.path("grey.mp4").exists() {
        filmed(home, "grey.mp4", GREY, CODED);
    }
    TestCamera::start(&home.path("grey.mp4"), 30, port, None)
}

async fn start(up: &Up, id: &str, settings: Value) {
    let scenarios = format!("{}/v1/scenarios", up.api);
    let created = http::post(&format!("{scenarios}?id={id}"), None, &settings).await;
    assert_eq!(created.status, 201, "{created:?}");
    let started = http::post(&format!("{scenarios}/{id}/commands"), None, &json!({"command": "start"})).await;
    assert_eq!(started.status, 202, "{started:?}");
}

/// Frames as RGB by ffmpeg, so many of them.
async fn watch(address: String, frames: usize) -> Vec<Vec<u8>> {
    let mut command = Command::new("ffmpeg");
    command.args([
        "-nostdin",
        "-v",
        "error",
        "-i",
        &address,
        "-frames:v",
        &frames.to_string(),
        "-fps_mode",
        "passthrough",
    ]);
    command.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]).stdout(Stdio::piped()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("frames in time").unwrap();
    output.stdout.chunks_exact(320 * 240 * 3).map(<[u8]>::to_vec).collect()
}

/// The same by mpv.
async fn watch_by_mpv(address: String, frames: usize) -> Vec<Vec<u8>> {
    let mut command = Command::new("mpv");
    command.args(["--no-config", "--really-quiet", "--no-audio", "--of=rawvideo", "--ovc=rawvideo", "--o=-"]);
    command.args(["--vf=format=rgb24", &format!("--frames={frames}"), &address]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("frames in time").unwrap();
    output.stdout.chunks_exact(320 * 240 * 3).map(<[u8]>::to_vec).collect()
}

/// Whether GStreamer plays what these elements, separated by spaces, give.
async fn gstreamer(elements: &str) {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(elements.split(' ')).args(["!", "fakesink", "num-buffers=20"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{elements}: {said}");
}

/// What ffprobe says of a video: its codec, profile and size.
async fn probe(address: &str) -> String {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-select_streams",
        "v",
        "-of",
        "csv=p=0",
        "-show_entries",
        "stream=codec_name,width,height",
    ]);
    if address.starts_with("rtsp") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    command.arg(address).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("an answer in time").unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

/// Pixels that are colourful: lines and labels.
fn colourful(frame: &[u8]) -> usize {
    let spread = |pixel: &[u8]| pixel.iter().max().unwrap() - pixel.iter().min().unwrap();
    frame.chunks_exact(3).filter(|pixel| spread(pixel) > 60).count()
}

/// What the caption's corner is like: black with white letters.
fn captioned(frame: &[u8]) -> bool {
    let corner = frame.chunks_exact(3).skip(320 * 232).step_by(320).map(|pixel| pixel[0]);
    let letters = frame.chunks_exact(3).skip(320 * 226).filter(|pixel| pixel[0] > 180 && pixel[1] > 180).count();
    corner.take(6).all(|luma| luma < 45) && letters > 50
}

async fn settings(camera: &TestCamera, more: Value) -> Value {
    let mut settings = json!({
        "source": {"url": camera.url()}, "model": MODEL, "analysis": {"confidence": 0.05, "input_size": "320x256"},
    });
    for (name, value) in more.as_object().unwrap() {
        settings[name] = value.clone();
    }
    settings
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn players_see_the_camera_with_every_object_marked() {
    let home = Home::new();
    let camera = camera(&home, None);
    let up = Up::start(&home).await;
    let live = format!("{}/v1/scenarios/gate/live", up.api);
    http::get(&format!("{live}.mp4")).await.problem(404, "not_found");
    // A part of the frames is analysed; the video shows all.
    start(&up, "gate", settings(&camera, json!({"preprocess": {"fps": 5}})).await).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    at_least(&nats, "gate", 3).await;
    let found = recorded(&nats, "gate").await;
    assert!(found.iter().any(|result| !result["detections"].as_array().unwrap().is_empty()), "{found:?}");
    let stream = nats.jetstream.get_stream(subjects::VIDEO).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 0, "nobody watches, nothing is made");

    let rtsp = up.rtsp("gate").await;
    let addresses = [".mp4", ".m3u8", ".mjpeg"].map(|kind| format!("{live}{kind}")).into_iter().chain([rtsp]);
    let players = addresses.clone().map(|address| async {
        let by_mpv = watch_by_mpv(address.clone(), 20).await;
        [(format!("{address} by mpv"), by_mpv), (address.clone(), watch(address, 40).await)]
    });
    let seen = futures::future::join_all(players).await;
    for (kind, frames) in seen.into_iter().flatten() {
        assert!(frames.len() >= 20, "{kind}: {} frames", frames.len());
        let marked = frames.iter().filter(|frame| colourful(frame) > 100).count();
        assert!(marked * 10 > frames.len() * 9, "{kind}: {marked} of {} frames are marked", frames.len());
        assert!(frames.iter().all(|frame| captioned(frame)), "{kind}: the name and the time");
    }
    for address in addresses {
        let codec = if address.ends_with("mjpeg") { "mjpeg" } else { "h264" };
        assert_eq!(probe(&address).await, format!("{codec},320,240"), "{address}");
    }
    gstreamer(&format!("souphttpsrc location={live}.mp4 ! qtdemux ! h264parse ! openh264dec")).await;
    // Its older reader of HLS (hlsdemux) waits for ever between segments of MP4.
    gstreamer(&format!("uridecodebin3 uri={live}.m3u8")).await;
    gstreamer(&format!("souphttpsrc location={live}.mjpeg ! multipartdemux ! jpegdec")).await;
    // The page names what it plays by addresses that are there.
    let page = reqwest::get(&live).await.unwrap().text().await.unwrap();
    assert!(page.contains("live.mp4"), "{page}");

    up.kadr(&home, "scenario stop gate").await.success();
    happened(&nats, "gate", "deactivated").await;
    http::get(&format!("{live}.m3u8")).await.problem(409, "not_running");
    up.process.stop().await.success();
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_viewer_stays_while_the_camera_is_away_and_leaves_when_it_is_stopped() {
    let home = Home::new();
    let first = camera(&home, None);
    let up = Up::start(&home).await;
    start(&up, "gate", settings(&first, json!({})).await).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    at_least(&nats, "gate", 3).await;
    let response = reqwest::get(&format!("{}/v1/scenarios/gate/live.mp4", up.api)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "video/mp4");
    let mut bytes = response.bytes_stream();
    let beginning = timeout(PATIENCE, bytes.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&beginning[4..8], b"ftyp");

    let port = first.port();
    drop(first);
    happened(&nats, "gate", "source_interrupted").await;
    // What was on its way.
    while let Ok(Some(piece)) = timeout(Duration::from_millis(800), bytes.next()).await {
        piece.unwrap();
    }
    let _second = camera(&home, Some(port));
    happened(&nats, "gate", "source_resumed").await;
    let piece = timeout(PATIENCE, bytes.next()).await.expect("it goes on").unwrap().unwrap();
    assert!(piece.windows(4).any(|box_type| box_type == b"moof"));

    // Another run is another video, whose times begin anew.
    up.kadr(&home, "scenario stop gate").await.success();
    happened(&nats, "gate", "deactivated").await;
    up.kadr(&home, "scenario start gate").await.success();
    let ended = async { while bytes.next().await.is_some_and(|piece| piece.is_ok()) {} };
    timeout(PATIENCE, ended).await.expect("the answer ends");
    up.process.stop().await.success();
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_detections_time_finds_its_second_of_video() {
    let home = Home::new();
    let camera = camera(&home, None);
    let up = Up::start(&home).await;
    http::get(&format!("{}/v1/scenarios/nobody/recordings", up.api)).await.problem(404, "not_found");
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    for (id, record) in [("marked", json!({})), ("own", json!({"what": "untouched"}))] {
        start(&up, id, settings(&camera, json!({"outputs": {"record": record}})).await).await;
    }
    for (id, is_marked) in [("marked", true), ("own", false)] {
        let scenario = format!("{}/v1/scenarios/{id}", up.api);
        let list = || async {
            let list = http::get(&format!("{scenario}/recordings")).await.body;
            let span = list["recordings"].as_array()?.first()?.clone();
            (span["seconds"].as_f64()? > 4.0).then_some(span)
        };
        let span = eventually("a recording", list).await;
        let (from, to) = (span["from"].as_str().unwrap(), span["to"].as_str().unwrap());
        let found = recorded(&nats, id).await;
        let time = |result: &Value| result["captured_at"].as_str().unwrap().to_owned();
        let times: Vec<_> = found.iter().map(time).filter(|time| (from..to).contains(&time.as_str())).collect();
        let moment = &times[times.len() / 2];

        let clip = home.path(&format!("{id}.mp4"));
        save(&format!("{scenario}/clip?from={moment}"), &clip).await;
        let frames = watch(clip.display().to_string(), 200).await;
        assert!(
            (10..=100).contains(&frames.len()),
            "{id}: about a second, from its key frame: {} frames",
            frames.len()
        );
        let marked = frames.iter().filter(|frame| colourful(frame) > 100).count();
        assert_eq!(marked * 2 > frames.len(), is_marked, "{id}: {marked} of {} frames are marked", frames.len());
        let nothing = format!("{scenario}/clip?from=2020-01-01T00:00:00Z");
        http::get(&nothing).await.problem(404, "not_found");
        http::get(&format!("{scenario}/clip?from=7")).await.problem(400, "bad_request");
        up.kadr(&home, &format!("scenario stop {id}")).await.success();
        happened(&nats, id, "deactivated").await;
        up.kadr(&home, &format!("scenario delete {id}")).await.success();
    }
    let mut stream = nats.jetstream.get_stream(subjects::RECORDINGS).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 0, "they go with their scenarios");
    up.process.stop().await.success();
}

#[tokio::test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
async fn a_browser_plays_it_and_its_pixels_show_boxes() {
    let home = Home::new();
    let camera = camera(&home, None);
    let up = Up::start(&home).await;
    start(&up, "gate", settings(&camera, json!({})).await).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    at_least(&nats, "gate", 3).await;
    let live = format!("{}/v1/scenarios/gate/live", up.api);
    let browser = Browser::start().await;
    browser.open(&live).await;
    // The page's own video, by Media Source Extensions, and then the playlist.
    for source in [Value::Null, json!(format!("{live}.m3u8"))] {
        let seen = browser.script(include_str!("support/look.js"), json!([source])).await;
        assert_eq!((&seen["width"], &seen["height"]), (&json!(320), &json!(240)), "{source}: {seen}");
        assert!(seen["colourful"].as_u64().unwrap() > 100, "{source}: {seen}");
    }
    browser.close().await;
    up.process.stop().await.success();
}

async fn save(address: &str, path: &Path) {
    let response = reqwest::get(address).await.unwrap();
    assert_eq!(response.status().as_u16(), 200, "{address}");
    std::fs::write(path, response.bytes().await.unwrap()).unwrap();
}
