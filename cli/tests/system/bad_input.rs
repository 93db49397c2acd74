//! What can't be done is told in words: what is wrong, what to do, and an exit code that says so. Nothing stays running.
//!
//! Exit code 2: it could not be begun. 1: it was begun and did not end well.

use std::{fs, net::TcpListener as StdListener};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::support::{
    clips::{H264, clip, plain},
    home::{Home, MODEL},
    lines,
    process::{Ended, Process, with_argument},
};

const UNUSABLE: i32 = 2;
const FAILED: i32 = 1;

/// That the analysis of `file` ends with this code and these words, and leaves neither processes nor a work folder.
async fn refuses(home: &Home, file: &str, options: &str, code: i32, words: &[&str]) -> Ended {
    let ended = home.analyze(file, "out", options).await.failed(code, words);
    nothing_left(home);
    ended
}

fn nothing_left(home: &Home) {
    let folder = home.folder().to_str().unwrap();
    assert_eq!(with_argument(folder), Vec::<u32>::new(), "no process of this test is left");
    if home.path("out").exists() {
        let hidden: Vec<_> = home.names_in("out").into_iter().filter(|name| name.starts_with('.')).collect();
        assert_eq!(hidden, Vec::<String>::new(), "no work folder");
    }
}

/// The number of frames of which detections were written.
fn written(home: &Home) -> usize {
    lines::read(&home.path("out/detections.jsonl")).len()
}

#[tokio::test]
async fn what_is_no_file_is_told_before_anything_starts() {
    let home = Home::new();
    refuses(&home, "missing.mp4", "", UNUSABLE, &["missing.mp4", "No such file"]).await;
    refuses(&home, "rtsp://127.0.0.1/a", "", UNUSABLE, &["is no file", "takes a video"]).await;
    assert!(!home.path("out").exists());
}

#[tokio::test]
async fn where_there_are_no_images_it_is_told() {
    let home = Home::new();
    fs::create_dir(home.path("folder")).unwrap();
    refuses(&home, "folder", "", FAILED, &["no JPEG or PNG in the folder"]).await;
    refuses(&home, "folder/*.jpg", "", FAILED, &["no file matches"]).await;
}

#[tokio::test]
async fn a_file_that_is_no_video_is_told() {
    let home = Home::new();
    fs::write(home.path("notes.mp4"), "these are my notes\n").unwrap();
    let words = ["a text file", "give H.264 in MP4 or MKV", "0 frames"];
    refuses(&home, "notes.mp4", "", FAILED, &words).await;
    assert_eq!(written(&home), 0);
}

#[tokio::test]
async fn of_a_truncated_file_what_is_there_is_analysed_and_the_rest_is_counted() {
    let home = Home::new();
    clip(&home, "clip.mp4", "s=320x240:r=25", &format!("-frames:v 50 {H264} -movflags faststart"));
    let bytes = fs::read(home.path("clip.mp4")).unwrap();
    fs::write(home.path("clip.mp4"), &bytes[..bytes.len() * 6 / 10]).unwrap();
    let ended = refuses(&home, "clip.mp4", "", FAILED, &["cut off", "of the 50 frames"]).await;
    let frames = written(&home);
    assert!((15..50).contains(&frames), "{frames}");
    assert!(ended.stderr.contains(&format!("{frames} of 50 frames were analysed")), "{}", ended.stderr);
    assert_eq!(home.names_in("out"), ["annotated.mp4", "detections.jsonl", "events.jsonl"]);
}

#[tokio::test]
async fn a_file_without_its_index_is_told() {
    let home = Home::new();
    plain(&home, "clip.mp4", 20);
    let bytes = fs::read(home.path("clip.mp4")).unwrap();
    fs::write(home.path("clip.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    refuses(&home, "clip.mp4", "", FAILED, &["moov", "make it again"]).await;
}

#[tokio::test]
async fn kinds_of_video_that_are_not_read_are_named_with_a_way_out() {
    let home = Home::new();
    let h265 = "-frames:v 10 -c:v libx265 -x265-params log-level=error:pools=none -pix_fmt yuv420p";
    clip(&home, "h265.mp4", "s=320x240:r=25", h265);
    refuses(&home, "h265.mp4", "", FAILED, &["H.265", "H.264 only", "ffmpeg -i IN"]).await;
    let interlaced = "-frames:v 10 -c:v libx264 -pix_fmt yuv420p -flags +ildct+ilme";
    clip(&home, "interlaced.mp4", "s=320x240:r=25", interlaced);
    refuses(&home, "interlaced.mp4", "", FAILED, &["interlaced", "bwdif"]).await;
}

#[tokio::test]
async fn a_video_without_frames_is_told() {
    let home = Home::new();
    clip(&home, "clip.mp4", "s=64x64:r=25", &format!("-frames:v 10 {H264} -movflags frag_keyframe+empty_moov"));
    let bytes = fs::read(home.path("clip.mp4")).unwrap();
    let head = bytes.windows(4).position(|word| word == b"moof").unwrap() - 4;
    fs::write(home.path("clip.mp4"), &bytes[..head]).unwrap();
    refuses(&home, "clip.mp4", "", FAILED, &["without a single frame"]).await;
}

#[tokio::test]
async fn missing_weights_are_named_with_address_digest_and_folder() {
    let home = Home::new();
    plain(&home, "clip.mp4", 2);
    let weights = home.models().join("tiny.safetensors");
    fs::remove_file(&weights).unwrap();
    let folder = home.models().display().to_string();
    let manifest = fs::read_to_string(home.models().join("manifest.toml")).unwrap();
    let sha256 = manifest.split("sha256 = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    // Published nowhere.
    refuses(&home, "clip.mp4", "", UNUSABLE, &["tiny.safetensors", &sha256, &folder]).await;
    // Published where nobody answers: no network.
    home.change_manifest("[[model.files]]\n", "[[model.files]]\nurl = \"http://127.0.0.1:1/tiny.safetensors\"\n");
    let words = ["tiny.safetensors", "http://127.0.0.1:1/tiny.safetensors", &sha256, &folder];
    refuses(&home, "clip.mp4", "", UNUSABLE, &words).await;
    assert_eq!(home.names_in("models"), ["manifest.toml"], "no half of a file stays");
    assert!(!home.path("out").exists());
}

#[tokio::test]
async fn weights_that_are_not_the_accepted_ones_are_not_opened() {
    let home = Home::new();
    plain(&home, "clip.mp4", 2);
    let weights = home.models().join("tiny.safetensors");
    let good = fs::read(&weights).unwrap();
    fs::write(&weights, &good[..good.len() / 2]).unwrap();
    let wanted = format!("wanted are {}", good.len());
    refuses(&home, "clip.mp4", "", UNUSABLE, &["tiny.safetensors", "cut", &wanted, "kadr models fetch"]).await;
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&weights, other).unwrap();
    refuses(&home, "clip.mp4", "", UNUSABLE, &["tiny.safetensors", "sha256", "kadr models fetch"]).await;
}

#[tokio::test]
async fn weights_of_another_shape_are_told_by_their_tensor() {
    let home = Home::new();
    plain(&home, "clip.mp4", 2);
    home.change_manifest("width = 0.01", "width = 0.25");
    // The right digest, of a model of another scale.
    refuses(&home, "clip.mp4", "", FAILED, &["tiny", "tensor"]).await;
}

#[tokio::test]
async fn names_and_numbers_that_can_not_be_are_told() {
    let home = Home::new();
    plain(&home, "clip.mp4", 2);
    let other = ["analyze", "clip.mp4", "--out", "out", "--model", "yolov9"];
    Process::start(&mut home.command(other)).ended().await.failed(UNUSABLE, &["no model yolov9", MODEL]);
    refuses(&home, "clip.mp4", "--classes kar", UNUSABLE, &["no class \"kar\"", "person, car, bus"]).await;
    for (option, word) in [
        ("--input-size 640x360", "multiples of 32"),
        ("--input-size large", "one like 640x384"),
        ("--input-size 0x0", "one like 640x384"),
        ("--confidence 1.5", "between 0 and 1"),
        ("--confidence NaN", "between 0 and 1"),
        ("--iou -1", "between 0 and 1"),
    ] {
        // With a sign of its own, a value would be taken for another option.
        let option = option.replacen(' ', "=", 1);
        refuses(&home, "clip.mp4", &option, UNUSABLE, &[word]).await;
    }
    assert!(!home.path("out").exists());
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_is_told() {
    let home = Home::new();
    plain(&home, "clip.mp4", 2);
    fs::write(home.path("out"), "a file").unwrap();
    home.analyze("clip.mp4", "out", "").await.failed(UNUSABLE, &["can't make the folder out"]);
    assert_eq!(fs::read_to_string(home.path("out")).unwrap(), "a file");
}

#[tokio::test]
async fn a_nats_server_that_does_not_answer_is_told() {
    let home = Home::new();
    let words = ["nats://127.0.0.1:1", "start one", "--nats"];
    home.kadr("up --listen 127.0.0.1:0 --nats nats://127.0.0.1:1").await.failed(UNUSABLE, &words);
    for service in ["api", "orchestrator", "runner", "inference"] {
        home.kadr(&format!("{service} --listen 127.0.0.1:0 --nats nats://127.0.0.1:1")).await.failed(UNUSABLE, &words);
        home.kadr(service).await.failed(UNUSABLE, &["--nats URL", "KADR_NATS"]);
    }
}

/// A server of 2022, as far as a client gets to know it.
async fn old_server() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("nats://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        const INFO: &str = concat!(
            r#"INFO {"server_id":"x","server_name":"x","version":"2.9.10","host":"127.0.0.1","port":4222,"#,
            r#""headers":true,"max_payload":1048576,"proto":1,"jetstream":true}"#,
            "\r\n"
        );
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let _ = stream.write_all(INFO.as_bytes()).await;
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
                    if line.starts_with("PING") && stream.write_all(b"PONG\r\n").await.is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_nats_server_that_is_too_old_is_told() {
    let home = Home::new();
    let (address, server) = old_server().await;
    let words = ["2.9.10", "2.14 or newer", &address];
    home.kadr(&format!("up --listen 127.0.0.1:0 --nats {address}")).await.failed(UNUSABLE, &words);
    server.abort();
    nothing_left(&home);
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let home = Home::new();
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    home.kadr(&format!("up --listen 127.0.0.1:{port}")).await.failed(UNUSABLE, &[&port, "in use"]);
    nothing_left(&home);
    home.kadr(&format!("up --listen 127.0.0.1:0 --nats-port {port}")).await.failed(UNUSABLE, &[&port, "in use"]);
    nothing_left(&home);
}

#[tokio::test]
async fn settings_that_are_not_known_are_told() {
    let home = Home::new();
    fs::write(home.path("kadr.toml"), "listen = \"127.0.0.1:0\"\nlisden = \"127.0.0.1:0\"\n").unwrap();
    home.kadr("up").await.failed(UNUSABLE, &["lisden", "listen", "kadr.toml"]);
    fs::write(home.path("kadr.toml"), "listen = \"here\"\n").unwrap();
    home.kadr("up").await.failed(UNUSABLE, &["listen", "kadr.toml"]);
    fs::write(home.path("kadr.toml"), "listen = \n").unwrap();
    home.kadr("up").await.failed(UNUSABLE, &["kadr.toml"]);
    fs::remove_file(home.path("kadr.toml")).unwrap();
    home.kadr("up --config other.toml").await.failed(UNUSABLE, &["other.toml", "--config"]);
    home.kadr("up --capacity 0").await.failed(UNUSABLE, &["at least 1"]);
    home.kadr("up --listen here").await.failed(UNUSABLE, &["--listen"]);
    nothing_left(&home);
}
