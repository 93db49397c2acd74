//! `kadr analyze`: a file goes in, three files come out, and they say what design.md promises.

use serde_json::Value;

use crate::support::{
    clips::{H264, clip, plain, probe},
    home::{Home, MODEL},
    lines::{self, WHOLE_RUN, folded, has_exactly, types},
};

/// That `detections.jsonl` has a line for each of `frames` frames, in order and with the promised fields.
fn check_detections(detections: &[Value], frames: usize, size: (u64, u64)) {
    assert_eq!(detections.len(), frames, "a line a frame");
    for (number, line) in detections.iter().enumerate() {
        has_exactly(line, "scenario run frame pts_ms captured_at width height model detections timing_ms");
        has_exactly(&line["model"], "name sha256 precision");
        has_exactly(&line["timing_ms"], "queue inference");
        assert_eq!((line["frame"].as_u64(), &line["run"]), (Some(number as u64), &detections[0]["run"]));
        assert_eq!((line["width"].as_u64(), line["height"].as_u64()), (Some(size.0), Some(size.1)));
        assert_eq!(line["model"]["name"], MODEL);
        for object in line["detections"].as_array().unwrap() {
            has_exactly(object, "class label confidence box");
            let confidence = object["confidence"].as_f64().unwrap();
            assert!((0.25..=1.0).contains(&confidence), "{object}");
            let corners: Vec<f64> = object["box"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let [x1, y1, x2, y2] = corners.as_slice() else { panic!("{object}") };
            let inside =
                0.0 <= *x1 && x1 <= x2 && *x2 <= size.0 as f64 && 0.0 <= *y1 && y1 <= y2 && *y2 <= size.1 as f64;
            assert!(inside, "{object}");
        }
    }
    let times: Vec<f64> = detections.iter().map(|line| line["pts_ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// That `events.jsonl` tells one whole run with the promised fields, and gives the state at its end by itself.
fn check_events(events: &[Value], frames: u64) {
    assert_eq!(types(events), WHOLE_RUN);
    for line in events {
        has_exactly(line, "seq time scenario type version cause actor data");
        has_exactly(&line["cause"], "input id");
        assert!(line["version"].as_u64().unwrap() >= 1, "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    assert!(events.is_sorted_by_key(|line| line["seq"].as_u64().unwrap()));
    let state = serde_json::to_value(folded(events)).unwrap();
    assert_eq!(folded(events).phase.name(), "inactive");
    assert_eq!((&state["ended"]["reason"], &state["ended"]["error"]), (&"completed".into(), &Value::Null), "{state}");
    assert_eq!((&state["run"]["frames"], &state["run"]["of"]), (&frames.into(), &frames.into()), "{state}");
}

/// Analyses `file` and checks everything that is promised of a source of this size and number of frames.
async fn check(home: &Home, file: &str, frames: usize, size: (u64, u64)) -> Vec<Value> {
    let shown = home.analyze(file, "out", "").await.success();
    assert_eq!(home.names_in("out"), ["annotated.mp4", "detections.jsonl", "events.jsonl"], "and no work folder");
    for part in [&format!("frames   {frames} in "), "objects  ", "annotated.mp4", "events.jsonl"] {
        assert!(shown.contains(part), "{part:?} is in {shown}");
    }
    let detections = lines::read(&home.path("out/detections.jsonl"));
    check_detections(&detections, frames, size);
    check_events(&lines::read(&home.path("out/events.jsonl")), frames as u64);
    detections
}

#[tokio::test]
async fn an_mp4_with_b_frames_becomes_a_video_detections_and_a_log() {
    let home = Home::new();
    clip(&home, "My Clip (1).mp4", "s=320x240:r=30000/1001", &format!("-frames:v 40 {H264}"));
    let detections = check(&home, "My Clip (1).mp4", 40, (320, 240)).await;
    assert!(detections.iter().any(|line| line["detections"] != serde_json::json!([])), "the model finds something");
    assert_eq!(probe(&home.path("out/annotated.mp4")), probe(&home.path("My Clip (1).mp4")), "size, rate, frames");
    assert_eq!(probe(&home.path("out/annotated.mp4")), "320,240,30000/1001,40");
}

#[tokio::test]
async fn a_fragmented_mp4_is_read_as_any_other() {
    let home = Home::new();
    clip(&home, "clip.mp4", "s=320x240:r=25", &format!("-frames:v 30 {H264} -movflags frag_keyframe+empty_moov"));
    check(&home, "clip.mp4", 30, (320, 240)).await;
    assert_eq!(probe(&home.path("out/annotated.mp4")), "320,240,25/1,30");
}

#[tokio::test]
async fn an_image_is_a_video_of_one_frame() {
    let home = Home::new();
    clip(&home, "still.jpg", "s=322x242:r=1:d=1", "-frames:v 1 -pix_fmt yuvj420p");
    check(&home, "still.jpg", 1, (322, 242)).await;
    assert!(probe(&home.path("out/annotated.mp4")).starts_with("322,242,"));
    // Odd sizes do not fit into 4:2:0: the detections are in the image's own pixels all the same.
    clip(&home, "odd.png", "s=400x300:r=1:d=1", "-frames:v 1 -vf format=rgb24,crop=321:241");
    check(&home, "odd.png", 1, (321, 241)).await;
    let video = probe(&home.path("out/annotated.mp4"));
    assert!(video.ends_with(",1"), "{video}");
}

#[tokio::test]
async fn matroska_and_bare_h264_are_read_as_mp4_is() {
    let home = Home::new();
    clip(&home, "clip.mkv", "s=320x240:r=25", &format!("-frames:v 30 {H264}"));
    check(&home, "clip.mkv", 30, (320, 240)).await;
    assert_eq!(probe(&home.path("out/annotated.mp4")), "320,240,25/1,30");
    clip(&home, "clip.h264", "s=320x240:r=10", &format!("-frames:v 12 {H264}"));
    home.analyze("clip.h264", "out", "").await.success();
    assert_eq!(lines::read(&home.path("out/detections.jsonl")).len(), 12);
    assert_eq!(probe(&home.path("out/annotated.mp4")), "320,240,10/1,12", "the rate that it states");
}

#[tokio::test]
async fn images_of_several_sizes_become_one_video() {
    let home = Home::new();
    std::fs::create_dir(home.path("stills")).unwrap();
    for (file, size) in [("img1.png", "320x240"), ("img10.jpg", "160x240"), ("img2.jpg", "640x480")] {
        clip(&home, &format!("stills/{file}"), &format!("s={size}:r=1:d=1"), "-frames:v 1 -update 1");
    }
    for source in ["stills", "stills/img*.*g"] {
        home.analyze(source, "out", "--fps 4").await.success();
        let detections = lines::read(&home.path("out/detections.jsonl"));
        let seen: Vec<_> =
            detections.iter().map(|line| (line["width"].as_u64().unwrap(), line["pts_ms"].as_f64().unwrap())).collect();
        assert_eq!(seen, [(320, 0.0), (640, 250.0), (160, 500.0)]);
        assert_eq!(probe(&home.path("out/annotated.mp4")), "320,240,4/1,3");
    }
}

#[tokio::test]
async fn options_decide_what_is_looked_for_and_written() {
    let home = Home::new();
    plain(&home, "clip.mp4", 12);
    home.analyze("clip.mp4", "out", "").await.success();
    assert!(home.path("out/annotated.mp4").exists());

    // Into the same folder: nothing of the first time stays, not even the video that is not made now.
    let shown = home.analyze("clip.mp4", "out", "--no-video --classes car,bus").await.success();
    assert_eq!(home.names_in("out"), ["detections.jsonl", "events.jsonl"]);
    assert!(!shown.contains("annotated.mp4"), "{shown}");
    let detections = lines::read(&home.path("out/detections.jsonl"));
    check_detections(&detections, 12, (320, 240));
    check_events(&lines::read(&home.path("out/events.jsonl")), 12);
    let labels: Vec<_> = objects(&detections).iter().map(|object| object["label"].clone()).collect();
    assert!(!labels.is_empty() && labels.iter().all(|label| label == "car" || label == "bus"), "{labels:?}");

    let shown = home.analyze("clip.mp4", "out", "--no-video --confidence 1").await.success();
    assert!(shown.contains("objects  none"), "{shown}");
    assert_eq!(objects(&lines::read(&home.path("out/detections.jsonl"))), Vec::<Value>::new());

    home.analyze("clip.mp4", "out", "--no-video --input-size 320x320 --iou 0.5").await.success();
    check_detections(&lines::read(&home.path("out/detections.jsonl")), 12, (320, 240));
    let created = &lines::read(&home.path("out/events.jsonl"))[0];
    let analysis = &created["data"]["settings"]["analysis"];
    assert_eq!((&analysis["input_size"], &analysis["iou"]), (&"320x320".into(), &0.5.into()), "{created}");
}

#[tokio::test]
async fn the_same_file_gives_the_same_detections() {
    let home = Home::new();
    plain(&home, "clip.mp4", 12);
    let mut found = Vec::new();
    for out in ["one", "two"] {
        home.analyze("clip.mp4", out, "--no-video").await.success();
        found.push(objects(&lines::read(&home.path(&format!("{out}/detections.jsonl")))));
    }
    assert_eq!(found[0], found[1]);
}

fn objects(detections: &[Value]) -> Vec<Value> {
    detections.iter().flat_map(|line| line["detections"].as_array().unwrap().clone()).collect()
}
