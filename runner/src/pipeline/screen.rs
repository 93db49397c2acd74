//! What becomes of frames besides storing: those with a result and those that were not analysed, in their order, to the file's
//! video and to whoever looks on. When a result is there is the pipeline's business; how things are drawn is the overlay's.

use std::collections::VecDeque;

use kadr_shared::{message::detection::Detection, settings::Between};

use super::{
    sink::Sink,
    stop::{Stop, Stops},
};
use crate::{
    live::{Live, between},
    source::Frame,
};

/// Frames that are not analysed and wait to be drawn.
const SKIPPED_BYTES: usize = 64 << 20;

pub(super) struct Screen {
    pub(super) live: Live,
    sink: Sink,
    stops: Stops,
    between: Between,
    /// A file's frames that are not analysed, and wait for those before them.
    skipped: VecDeque<Frame>,
    /// When the last frame with a result is shown, and what was found in it.
    last: (f64, Vec<Detection>),
    /// One more than the number of the last frame that was drawn.
    passed: u64,
}

impl Screen {
    pub(super) const fn new(live: Live, sink: Sink, stops: Stops, between: Between) -> Self {
        Self { live, sink, stops, between, skipped: VecDeque::new(), last: (0.0, Vec::new()), passed: 0 }
    }

    /// One more than the number of the last frame that was drawn.
    pub(super) const fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether there is room for another frame that is not analysed.
    pub(super) fn has_room(&self) -> bool {
        let bytes = self.skipped.front().map_or(0, |frame| frame.picture.bytes().len());
        self.skipped.len() * bytes <= SKIPPED_BYTES
    }

    /// A frame whose result is stored; before it those that were not analysed.
    pub(super) async fn show(&mut self, frame: Frame, detections: Vec<Detection>) -> Result<(), Stop> {
        while let Some(skipped) = self.skipped.pop_front_if(|skipped| skipped.number < frame.number) {
            let drawn = match self.between {
                Between::Hold => self.last.1.clone(),
                Between::Interpolate => {
                    let (from, to) = (self.last.0, frame.pts_ms);
                    between(&self.last.1, &detections, ((skipped.pts_ms - from) / (to - from)) as f32)
                }
            };
            self.draw(skipped, drawn).await?;
        }
        self.last = (frame.pts_ms, detections.clone());
        self.draw(frame, detections).await
    }

    /// A frame of an earlier attempt that was not analysed.
    pub(super) async fn show_without(&mut self, frame: Frame) -> Result<(), Stop> {
        let held = self.last.1.clone();
        self.draw(frame, held).await
    }

    /// A frame that is not analysed, to be shown in its turn.
    pub(super) fn skip(&mut self, frame: Frame) {
        self.skipped.push_back(frame);
    }

    /// Draws frames that were not analysed as far as they wait for nothing, or as there are too many of them. `first`: the first
    /// frame that has no result yet.
    pub(super) async fn show_skipped(&mut self, first: Option<u64>) -> Result<(), Stop> {
        while let Some(frame) = self.skipped.front() {
            let behind = first.is_some_and(|first| first < frame.number);
            if behind || self.between == Between::Interpolate && self.has_room() {
                break;
            }
            self.show_next_skipped().await?;
        }
        Ok(())
    }

    /// Draws what is left, since nothing more will come.
    pub(super) async fn show_rest(&mut self) -> Result<(), Stop> {
        while !self.skipped.is_empty() {
            self.show_next_skipped().await?;
        }
        Ok(())
    }

    async fn show_next_skipped(&mut self) -> Result<(), Stop> {
        match self.skipped.pop_front() {
            Some(frame) => self.show_without(frame).await,
            None => Ok(()),
        }
    }

    async fn draw(&mut self, frame: Frame, detections: Vec<Detection>) -> Result<(), Stop> {
        self.passed = frame.number + 1;
        if self.stops.unless(self.sink.push(frame, detections)).await? {
            return Ok(());
        }
        let error = std::mem::replace(&mut self.sink, Sink::None).finish().await;
        Err(Stop::for_good(error.err().unwrap_or_else(|| "the video's writer ended early".to_owned())))
    }

    /// Writes what is left of the file's video and closes it. Nobody looks on any more.
    pub(super) async fn finish(self) -> Result<(), String> {
        self.sink.finish().await
    }
}
