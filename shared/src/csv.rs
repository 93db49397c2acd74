//! Results as a table: a line a detection (RFC 4180, with `\n`). A frame without detections has none.

use std::{borrow::Cow, fmt::Write};

use crate::message::detection::FrameDetections;

/// The first line. Boxes are in the source's pixels, `pts_ms` is the time within the run.
pub const HEADER: &str = "scenario,run,frame,pts_ms,captured_at,width,height,class,label,confidence,x1,y1,x2,y2\n";

/// A result's lines.
pub fn lines(result: &FrameDetections) -> String {
    let FrameDetections { scenario, run, frame, pts_ms, captured_at, width, height, detections, .. } = result;
    let mut lines = String::new();
    for found in detections {
        let (label, [x1, y1, x2, y2]) = (field(&found.label), found.bbox);
        // Writing to a string does not fail.
        let _ = writeln!(
            lines,
            "{scenario},{run},{frame},{pts_ms},{captured_at},{width},{height},{},{label},{},{x1},{y1},{x2},{y2}",
            found.class, found.confidence,
        );
    }
    lines
}

/// Labels are a model's own: they may hold anything.
fn field(text: &str) -> Cow<'_, str> {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " ")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        id::RunId,
        message::detection::{Detection, ModelStamp, Timing},
        time::Timestamp,
    };

    pub(crate) fn result() -> FrameDetections {
        let found =
            |label: &str| Detection { class: 2, label: label.into(), confidence: 0.75, bbox: [1.0, 2.5, 30.0, 40.25] };
        FrameDetections {
            scenario: "gate".parse().unwrap(),
            run: RunId::from_u128(1),
            frame: 7,
            pts_ms: 280.0,
            captured_at: Timestamp::from_millis(1000),
            width: 1280,
            height: 720,
            model: ModelStamp { name: "tiny".parse().unwrap(), sha256: "0".into(), precision: "f32".into() },
            detections: vec![found("car"), found("a \"big\", red one\n")],
            timing_ms: Timing { queue: 0.0, inference: 0.0 },
        }
    }

    #[test]
    fn each_detection_is_one_line_of_as_many_fields_as_the_header_has() {
        let result = result();
        let start = "gate,00000000-0000-0000-0000-000000000001,7,280,1970-01-01T00:00:01.000Z,1280,720,2,";
        let wanted =
            format!("{start}car,0.75,1,2.5,30,40.25\n{start}\"a \"\"big\"\", red one \",0.75,1,2.5,30,40.25\n");
        assert_eq!(lines(&result), wanted);
        let first = wanted.lines().next().unwrap();
        assert_eq!(first.split(',').count(), HEADER.split(',').count());
        assert_eq!(lines(&FrameDetections { detections: Vec::new(), ..result }), "");
    }
}
