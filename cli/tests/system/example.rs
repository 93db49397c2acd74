//! The example that knows nothing of kadr but its subjects.

use std::{path::Path, process::Command};

use crate::support::{clips::plain, home::Home, process::Process, up::Up};

#[tokio::test]
async fn a_plain_nats_subscriber_sees_detections_as_they_are_stored() {
    let program = Path::new(env!("CARGO_BIN_EXE_kadr")).with_file_name("examples").join("subscribe");
    assert!(program.exists(), "{} is missing: cargo build -p kadr --example subscribe", program.display());
    let home = Home::new();
    plain(&home, "clip.mp4", 25);
    let up = Up::start(&home).await;
    up.create(&home, "gate", "clip.mp4").await;
    let subscriber = Process::start(Command::new(&program).args([&up.nats, "gate"]));
    subscriber.line_after("waiting for gate").await;
    up.kadr(&home, "scenario start gate").await.success();

    let last = subscriber.line_after("frame 24 at ").await;
    assert!(last.starts_with("960"), "{last}");
    let printed = subscriber.stdout();
    let frames: Vec<_> = printed.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(frames, (0..25).map(|frame| frame.to_string()).collect::<Vec<_>>());
    let objects = ["person 0.", "car 0.", "bus 0."];
    assert!(objects.iter().any(|object| printed.contains(object)), "objects are printed: {printed}");
    up.process.stop().await.success();
}
