//! Which stored results are passed on to whoever asked for some of them, and what of them: by class, confidence, rate.
//!
//! Pure: where results come from and go to is not known here.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{id::RunId, message::detection::FrameDetections, settings::Ratio};

/// What is wanted of a scenario's results. By default all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Labels to keep; empty: all.
    pub classes: Vec<String>,
    /// Detections below it are left out.
    pub confidence: Option<Ratio>,
    /// The most results a second, by the time at which frames are shown.
    pub rate: Option<Rate>,
}

/// Results or frames a second.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Rate(f64);

/// A number a second that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is no rate: give 0.01 to 1000 a second")]
pub struct RateError(f64);

impl Rate {
    pub fn new(value: f64) -> Result<Self, RateError> {
        if (0.01..=1000.0).contains(&value) { Ok(Self(value)) } else { Err(RateError(value)) }
    }

    pub const fn get(self) -> f64 {
        self.0
    }

    /// Of the spans that a result may be passed on in, the one that a time lies in.
    fn span(self, pts_ms: f64) -> i64 {
        // Beyond what an integer holds, all lie in the last one.
        (pts_ms / 1000.0 * self.0).floor() as i64
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = text.parse().map_err(|_| "a number a second is wanted".to_owned())?;
        Self::new(value).map_err(|e| e.to_string())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A filter at work on results in their order.
#[derive(Debug, Clone)]
pub struct Selection {
    filter: Filter,
    /// Where the last result that was passed on lies.
    last: Option<(RunId, i64)>,
}

impl Selection {
    pub const fn new(filter: Filter) -> Self {
        Self { filter, last: None }
    }

    /// Goes on behind a result that was the last one of an earlier selection by the same filter.
    pub fn resume(&mut self, last: FrameDetections) {
        let place = self.place(&last);
        // One that was not passed on tells nothing.
        if self.filter.pick(last).is_some() {
            self.last = place;
        }
    }

    /// The result as it is to be passed on, if it is. One of whose detections the filter leaves none is not; frames without
    /// any object come only where neither class nor confidence is asked for.
    pub fn pass(&mut self, result: FrameDetections) -> Option<FrameDetections> {
        let place = self.place(&result);
        if place.is_some() && place == self.last {
            return None;
        }
        let picked = self.filter.pick(result)?;
        self.last = place;
        Some(picked)
    }

    fn place(&self, result: &FrameDetections) -> Option<(RunId, i64)> {
        self.filter.rate.map(|rate| (result.run, rate.span(result.pts_ms)))
    }
}

impl Filter {
    fn pick(&self, mut result: FrameDetections) -> Option<FrameDetections> {
        // As results hold it: what is written as 0.9 is not below 0.9.
        let least = self.confidence.map_or(0.0, Ratio::get) as f32;
        let wanted = |label: &str| self.classes.is_empty() || self.classes.iter().any(|class| class == label);
        result.detections.retain(|found| found.confidence >= least && wanted(&found.label));
        let all = self.classes.is_empty() && self.confidence.is_none();
        (all || !result.detections.is_empty()).then_some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{csv::tests::result, message::detection::Detection};

    fn frame(number: u64, pts_ms: f64, found: &[(&str, f32)]) -> FrameDetections {
        let detections = found.iter().map(|(label, confidence)| Detection {
            class: 0,
            label: (*label).to_owned(),
            confidence: *confidence,
            bbox: [0.0; 4],
        });
        FrameDetections { frame: number, pts_ms, detections: detections.collect(), ..result() }
    }

    fn passed(filter: Filter, frames: &[FrameDetections]) -> Vec<u64> {
        let mut selection = Selection::new(filter);
        frames.iter().filter_map(|frame| selection.pass(frame.clone())).map(|frame| frame.frame).collect()
    }

    #[test]
    fn classes_and_confidence_leave_detections_out_and_frames_of_which_nothing_is_left() {
        let street = [
            frame(0, 0.0, &[("car", 0.9), ("person", 0.8)]),
            frame(1, 40.0, &[("car", 0.4)]),
            frame(2, 80.0, &[("person", 0.99)]),
            frame(3, 120.0, &[]),
        ];
        assert_eq!(passed(Filter::default(), &street), [0, 1, 2, 3]);
        let half = Ratio::new(0.5).unwrap();
        let cars = Filter { classes: vec!["car".into()], confidence: Some(half), rate: None };
        assert_eq!(passed(cars.clone(), &street), [0]);
        let kept = Selection::new(cars).pass(street[0].clone()).unwrap().detections;
        assert_eq!(kept.iter().map(|d| d.label.as_str()).collect::<Vec<_>>(), ["car"]);
        assert_eq!(passed(Filter { confidence: Some(half), ..Filter::default() }, &street), [0, 2]);
        let exact = Filter { confidence: Some(Ratio::new(0.9).unwrap()), ..Filter::default() };
        assert_eq!(passed(exact, &street), [0, 2]);
    }

    #[test]
    fn a_rate_counts_only_what_is_passed_on_and_by_the_time_that_frames_are_shown_at() {
        let rate = Some(Rate::new(2.0).unwrap());
        let steady: Vec<_> = (0..50).map(|n| frame(n, n as f64 * 40.0, &[("car", 0.9)])).collect();
        assert_eq!(passed(Filter { rate, ..Filter::default() }, &steady), [0, 13, 25, 38]);
        let street = [
            frame(0, 0.0, &[("person", 0.9)]),
            frame(1, 100.0, &[("car", 0.9)]),
            frame(2, 200.0, &[("car", 0.9)]),
            frame(3, 600.0, &[("car", 0.9)]),
        ];
        let cars = Filter { classes: vec!["car".into()], confidence: None, rate };
        assert_eq!(passed(cars, &street), [1, 3], "what is not wanted takes no place");
        let next_run = FrameDetections { run: RunId::from_u128(9), ..frame(0, 0.0, &[]) };
        assert_eq!(passed(Filter { rate, ..Filter::default() }, &[steady[0].clone(), next_run]), [0, 0]);
    }

    #[test]
    fn a_selection_that_is_taken_up_again_passes_the_same() {
        let filter = Filter { rate: Some(Rate::new(2.0).unwrap()), ..Filter::default() };
        let frames: Vec<_> = (0..50).map(|n| frame(n, n as f64 * 40.0, &[])).collect();
        for cut in 1..frames.len() {
            let (before, after) = frames.split_at(cut);
            let mut selection = Selection::new(filter.clone());
            let mut all = passed(filter.clone(), before);
            selection.resume(before.last().unwrap().clone());
            all.extend(after.iter().filter_map(|frame| selection.pass(frame.clone())).map(|frame| frame.frame));
            assert_eq!(all, passed(filter.clone(), &frames), "cut at {cut}");
        }
    }

    #[test]
    fn rates_have_bounds() {
        for bad in ["0", "-1", "NaN", "1001", "often", ""] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!("0.5".parse::<Rate>().unwrap().get(), 0.5);
        assert!(serde_json::from_str::<Rate>("0").is_err());
    }
}
