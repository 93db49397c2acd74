//! One viewer: pictures from a key frame on, always of the present.
//!
//! A key frame is asked for when it comes, so that it begins with this moment and not with one of some time ago. Where none
//! comes soon (a camera that sends a picture a second, or is away), it begins with the latest that is remembered. One that is
//! too slow misses pictures, up to a key frame; nobody waits for it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use kadr_shared::message::video::AccessUnit;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, Kind, Watch};

/// A key frame that was asked for is waited for as long.
const KEY_PATIENCE: Duration = Duration::from_millis(500);

/// Watches one scenario.
pub(crate) struct Viewer {
    /// That it is watched.
    _watch: Watch,
    stop: CancellationToken,
    /// Remembered, and not given yet.
    ahead: VecDeque<Arc<AccessUnit>>,
    pictures: broadcast::Receiver<Arc<AccessUnit>>,
    /// Nothing was given yet: until when a key frame is waited for.
    begin: Option<Instant>,
    /// What was given last can be followed by what comes next.
    whole: bool,
    /// The encoder and the group of what was given last.
    last: (u64, u64),
}

impl Viewer {
    pub(super) fn new(channel: Arc<Channel>, stop: CancellationToken) -> Self {
        let (ahead, pictures) = channel.subscribe();
        let watch = Watch::new(channel, Kind::Video);
        let begin = Some(Instant::now() + KEY_PATIENCE);
        Self { _watch: watch, stop, ahead: ahead.into(), pictures, begin, whole: false, last: (0, 0) }
    }

    /// The next picture; the first one is a key frame, and so is one after pictures that were missed. Waits as long as there is
    /// none; `None`: the API ends. May be dropped at any await.
    pub(crate) async fn next(&mut self) -> Option<Arc<AccessUnit>> {
        loop {
            if let Some(until) = self.begin {
                match timeout_at(until, self.receive()).await {
                    Ok(Some(unit)) if unit.key => {
                        (self.begin, self.whole) = (None, true);
                        self.ahead.clear();
                        self.last = (unit.stream, unit.group);
                        return Some(unit);
                    }
                    Ok(Some(unit)) if !self.ahead.is_empty() => self.ahead.push_back(unit),
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(_) => (self.begin, self.whole) = (None, !self.ahead.is_empty()),
                }
                continue;
            }
            let unit = match self.ahead.pop_front() {
                Some(unit) => unit,
                None => self.receive().await?,
            };
            // One of another group lost its key frame on its way.
            self.whole = unit.key || self.whole && self.last == (unit.stream, unit.group);
            if self.whole {
                self.last = (unit.stream, unit.group);
                return Some(unit);
            }
        }
    }

    async fn receive(&mut self) -> Option<Arc<AccessUnit>> {
        loop {
            let received = tokio::select! {
                () = self.stop.cancelled() => return None,
                received = self.pictures.recv() => received,
            };
            match received {
                Ok(unit) => return Some(unit),
                Err(RecvError::Lagged(_)) => {
                    self.whole = false;
                    self.ahead.clear();
                }
                // The channel lives as long as its viewer.
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::{id::RunId, time::Timestamp};

    use super::*;

    fn unit(group: u64, pts_ms: f64, key: bool) -> AccessUnit {
        let size = "64x64".parse().unwrap();
        let (run, captured_at) = (RunId::from_u128(1), Timestamp::from_millis(0));
        AccessUnit { run, stream: 1, group, key, pts_ms, captured_at, size, body: vec![0; 8].into() }
    }

    fn viewer(channel: &Arc<Channel>) -> Viewer {
        Viewer::new(channel.clone(), CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_with_the_key_frame_that_it_asked_for() {
        let channel = Arc::new(Channel::new());
        channel.push(unit(1, 0.0, true));
        let mut viewer = viewer(&channel);
        channel.push(unit(1, 40.0, false));
        channel.push(unit(2, 80.0, true));
        channel.push(unit(2, 120.0, false));
        let times = [viewer.next().await.unwrap().pts_ms, viewer.next().await.unwrap().pts_ms];
        assert_eq!(times, [80.0, 120.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_comes_it_begins_with_the_latest() {
        let channel = Arc::new(Channel::new());
        for (group, pts_ms, key) in [(1, 0.0, true), (2, 40.0, true), (2, 80.0, false)] {
            channel.push(unit(group, pts_ms, key));
        }
        let mut viewer = viewer(&channel);
        channel.push(unit(2, 120.0, false));
        for wanted in [40.0, 80.0, 120.0] {
            assert_eq!(viewer.next().await.unwrap().pts_ms, wanted);
        }
        channel.push(unit(2, 160.0, false));
        assert_eq!(viewer.next().await.unwrap().pts_ms, 160.0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_shown_what_another_one_watched_some_time_ago() {
        let channel = Arc::new(Channel::new());
        let mut viewer = viewer(&channel);
        for (pts_ms, key) in [(0.0, true), (40.0, false), (80.0, true)] {
            channel.remember(unit(1, pts_ms, key));
        }
        assert!(channel.recent().is_empty(), "nothing follows it yet");
        channel.push(AccessUnit { stream: 2, ..unit(9, 9_000.0, true) });
        assert_eq!(viewer.next().await.unwrap().pts_ms, 9_000.0);
        assert_eq!(channel.recent().len(), 1, "it is followed by another encoder's");
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_api_has_shown_is_remembered() {
        let channel = Arc::new(Channel::new());
        channel.remember(unit(1, 0.0, true));
        channel.push(unit(1, 40.0, false));
        assert_eq!(channel.recent().len(), 2);
        let mut viewer = viewer(&channel);
        assert_eq!(viewer.next().await.unwrap().pts_ms, 0.0, "the camera sends few pictures: the latest key frame");
    }

    #[tokio::test(start_paused = true)]
    async fn what_lost_its_key_frame_is_left_out() {
        let channel = Arc::new(Channel::new());
        let mut viewer = viewer(&channel);
        for (group, pts_ms, key) in [(1, 0.0, true), (1, 40.0, false), (2, 120.0, false), (3, 160.0, true)] {
            channel.push(unit(group, pts_ms, key));
        }
        for wanted in [0.0, 40.0, 160.0] {
            assert_eq!(viewer.next().await.unwrap().pts_ms, wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_too_slow_goes_on_at_a_key_frame() {
        let channel = Arc::new(Channel::new());
        let mut viewer = viewer(&channel);
        channel.push(unit(1, 0.0, true));
        assert!(viewer.next().await.unwrap().key);
        (1..=300).for_each(|n| channel.push(unit(1, f64::from(n), false)));
        channel.push(unit(2, 400.0, true));
        assert_eq!(viewer.next().await.unwrap().pts_ms, 400.0);
    }
}
