//! Pre-processing, by the frames that inference receives.

use std::{path::Path, process::Command};

use kadr_shared::{
    domain::{EndReason, EventData, Fact},
    id::{RunId, ScenarioId},
    message::frame::FrameHeader,
};
use serde_json::{Value, json};

use crate::world::{MODEL, World};

/// Red on the left, blue on the right, 25 frames of 128x64.
fn two_colours(path: &Path) {
    let graph = "color=c=red:s=64x64:r=25:d=1[l];color=c=blue:s=64x64:r=25:d=1[r];[l][r]hstack";
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", graph, "-c:v", "libx264", "-qp", "4"]);
    assert!(command.args(["-pix_fmt", "yuv420p"]).arg(path).status().expect("ffmpeg is installed").success());
}

struct Planes<'a> {
    width: usize,
    luma: &'a [u8],
    chroma: &'a [u8],
}

impl<'a> Planes<'a> {
    fn of((header, body): &'a (FrameHeader, Vec<u8>)) -> Self {
        let width = header.input.width() as usize;
        let (luma, chroma) = body.split_at(width * header.input.height() as usize);
        Self { width, luma, chroma }
    }

    /// Whether the middle row is near `left` in its left quarter and near `right` in its right one.
    fn halves(&self, left: u8, right: u8) -> bool {
        let row = &self.luma[self.luma.len() / 2..][..self.width];
        let near = |part: &[u8], wanted: u8| part.iter().all(|luma| luma.abs_diff(wanted) < 6);
        near(&row[..self.width / 4], left) && near(&row[self.width * 3 / 4..], right)
    }
}

/// Luma by BT.601.
const RED: u8 = 81;
const BLUE: u8 = 41;
const COVERED: u8 = 114;

#[tokio::test(flavor = "multi_thread")]
async fn inference_sees_what_was_asked_for() {
    let mut world = World::start().await;
    let clip = world.folder.path().join("colours.mp4");
    two_colours(&clip);
    let inference = world.inference().await;
    let _runner = world.runner(1);
    let cases = [
        json!({}),
        json!({"crop": {"left": 64, "top": 0, "width": 64, "height": 32}}),
        json!({"every": 10}),
        json!({"fps": 5}),
        json!({"grey": true}),
        json!({"masks": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}),
    ];
    for (case, preprocess) in cases.into_iter().enumerate() {
        let scenario: ScenarioId = format!("case-{case}").parse().unwrap();
        let run = RunId::from_u128(case as u128 + 1);
        let start = start(&world, &scenario, run, &clip, &preprocess).await;
        let name = world.claimed(start).await;
        let fence = world.assign(&scenario, run, name).await;
        assert_eq!(world.fact().await.1.fact, Fact::Streaming { fence });
        let ended = Fact::Ended { fence, frames: 25, of: Some(25), error: None };
        assert_eq!(world.fact().await.1.fact, ended, "{preprocess}");
        world
            .append(&scenario, EventData::Deactivated { run, reason: EndReason::Completed, frames: None, error: None })
            .await;

        let mut frames = inference.bodies_of(fence);
        frames.sort_by_key(|(header, _)| header.frame);
        let numbers: Vec<_> = frames.iter().map(|(header, _)| header.frame).collect();
        let stored = world.results(&scenario).await;
        assert_eq!(stored.iter().map(|result| result.frame).collect::<Vec<_>>(), numbers);
        assert!(stored.iter().all(|result| (result.width, result.height) == (128, 64)));
        let planes = Planes::of(&frames[0]);
        let source = frames[0].0.source.to_string();
        let colours = planes.chroma.iter().any(|chroma| chroma.abs_diff(128) > 50);
        match case {
            0 => assert!(planes.halves(RED, BLUE) && colours && numbers.len() == 25),
            1 => {
                assert!(planes.halves(BLUE, BLUE) && source == "64x32", "{source}");
                // The test's answer begins at the frame's number, in the pixels of the part.
                assert!(stored.iter().all(|result| result.detections[0].bbox[0] == result.frame as f32 + 64.0));
            }
            2 => assert_eq!(numbers, [0, 10, 20]),
            3 => assert_eq!(numbers, [0, 5, 10, 15, 20]),
            4 => assert!(planes.halves(RED, BLUE) && !colours),
            _ => assert!(planes.halves(COVERED, BLUE)),
        }
    }
}

async fn start(world: &World, scenario: &ScenarioId, run: RunId, source: &Path, preprocess: &Value) -> u64 {
    let settings = json!({
        "source": {"url": source}, "model": MODEL, "preprocess": preprocess, "analysis": {"input_size": "64x32"},
        "outputs": {"video": false},
    });
    let settings = Box::new(serde_json::from_value(settings).unwrap());
    world.append(scenario, EventData::StartRequested { run, attempt: 1, settings }).await
}
