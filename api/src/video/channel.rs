//! One scenario's video: read once, remembered for some seconds, passed on to all viewers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kadr_shared::{
    id::ScenarioId,
    message::video::{AccessUnit, Watching},
    nats::Nats,
    streams::VIDEO_AGE,
    subjects,
    tail::Tail,
};
use tokio::{
    sync::{Notify, broadcast},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How often it is said that somebody watches; runners forget it after some of these.
const RENEWAL: Duration = Duration::from_secs(1);
/// Saying so may take this long.
const SAY_TIMEOUT: Duration = Duration::from_secs(2);
/// Players of HLS come and go with every request: they count as viewers for so long.
const LINGER: Duration = Duration::from_secs(10);
/// A channel without any viewer goes on for so long: less than the runner goes on for, so that what is remembered is always
/// followed by what comes next.
const ASKED: Duration = Duration::from_secs(3);
/// Pictures that a viewer may be behind: some seconds. One that is further behind goes on at the latest key frame.
const BEHIND: usize = 128;
/// What is remembered is bounded by time, and by this.
const MOST_UNITS: usize = 2_000;
const MOST_BYTES: usize = 64 << 20;

/// What a viewer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Video,
    Images,
}

/// A scenario's pictures, from now on and for the last seconds.
pub(crate) struct Channel {
    recent: Mutex<Recent>,
    sender: broadcast::Sender<Arc<AccessUnit>>,
    video: AtomicUsize,
    images: AtomicUsize,
    /// When somebody last asked for it.
    asked: Mutex<Instant>,
    /// When a player of HLS last asked for what comes next.
    listed: Mutex<Option<Instant>>,
    /// A viewer came new, who wants a key frame.
    came: Notify,
    /// A player of HLS came new, who wants what there is.
    listed_anew: Notify,
    /// There is a new picture.
    pictures: Notify,
}

#[derive(Default)]
struct Recent {
    units: VecDeque<(Instant, Arc<AccessUnit>)>,
    bytes: usize,
    /// Some came since the channel began. Until then there is only what somebody watched before, perhaps some time ago.
    live: bool,
}

impl Recent {
    /// Whether it was there before the channel was, is `past`. What another encoder has coded then is another viewer's: it has
    /// ended, and the present does not follow it.
    fn push(&mut self, unit: Arc<AccessUnit>, past: bool) {
        if !past && !self.live {
            self.live = true;
            if self.units.back().is_some_and(|(_, last)| last.stream != unit.stream) {
                (self.units, self.bytes) = Default::default();
            }
        }
        let now = Instant::now();
        self.bytes += unit.body.len();
        self.units.push_back((now, unit));
        while let Some((at, oldest)) = self.units.front()
            && (now.duration_since(*at) > VIDEO_AGE || self.units.len() > MOST_UNITS || self.bytes > MOST_BYTES)
        {
            self.bytes -= oldest.body.len();
            self.units.pop_front();
        }
    }

    fn from(&self, at: usize) -> Vec<Arc<AccessUnit>> {
        if self.live { self.units.range(at..).map(|(_, unit)| unit.clone()).collect() } else { Vec::new() }
    }
}

/// A panic while something was remembered leaves a list: nothing to be afraid of.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    pub(super) fn new() -> Self {
        let (sender, _) = broadcast::channel(BEHIND);
        Self {
            recent: Mutex::default(),
            sender,
            video: AtomicUsize::new(0),
            images: AtomicUsize::new(0),
            asked: Mutex::new(Instant::now()),
            listed: Mutex::default(),
            came: Notify::new(),
            listed_anew: Notify::new(),
            pictures: Notify::new(),
        }
    }

    /// Somebody wants it: it goes on for a while.
    pub(super) fn ask(&self) {
        *lock(&self.asked) = Instant::now();
    }

    /// A player of HLS asked for what comes next, and will ask again.
    pub(crate) fn list(&self) {
        let before = lock(&self.listed).replace(Instant::now());
        if before.is_none_or(|before| before.elapsed() > LINGER) {
            self.listed_anew.notify_one();
        }
    }

    fn is_listed(&self) -> bool {
        lock(&self.listed).is_some_and(|listed| listed.elapsed() < LINGER)
    }

    pub(super) fn is_wanted(&self) -> bool {
        let watched = [&self.video, &self.images].iter().any(|count| count.load(Ordering::Relaxed) > 0);
        watched || self.is_listed() || lock(&self.asked).elapsed() < ASKED
    }

    /// The pictures of the last seconds, in order.
    pub(crate) fn recent(&self) -> Vec<Arc<AccessUnit>> {
        let recent = lock(&self.recent);
        // Where no more came, the rest has grown old.
        let fresh = recent.units.iter().position(|(at, _)| at.elapsed() <= VIDEO_AGE);
        recent.from(fresh.unwrap_or(recent.units.len()))
    }

    /// The pictures from the latest key frame on, and all that will come: none is left out, none comes twice.
    pub(super) fn subscribe(&self) -> (Vec<Arc<AccessUnit>>, broadcast::Receiver<Arc<AccessUnit>>) {
        let recent = lock(&self.recent);
        let latest = recent.units.iter().rposition(|(_, unit)| unit.key);
        (latest.map_or(Vec::new(), |at| recent.from(at)), self.sender.subscribe())
    }

    /// Waits until `ready` finds in the latest pictures what it looks for, at most `patience`.
    pub(crate) async fn wait_for<T>(
        &self,
        patience: Duration,
        ready: impl Fn(&[Arc<AccessUnit>]) -> Option<T>,
    ) -> Option<T> {
        let found = async {
            loop {
                // Enabled before the look, so that a picture between look and wait is not missed.
                let mut picture = std::pin::pin!(self.pictures.notified());
                picture.as_mut().enable();
                if let Some(found) = ready(&self.recent()) {
                    return found;
                }
                picture.await;
            }
        };
        timeout(patience, found).await.ok()
    }

    /// Reads until nobody wants it any more, and says all the time what is watched.
    pub(super) async fn read(&self, nats: &Nats, scenario: &ScenarioId, stop: &CancellationToken) {
        // What there is comes once more, if this is not the first time.
        *lock(&self.recent) = Recent::default();
        // In a task of its own: saying that it is watched must not interrupt what the reader is at.
        let tail = Tail::volatile(nats.jetstream.clone(), subjects::VIDEO, subjects::video(scenario));
        let mut pictures = tail.spawn(BEHIND);
        let mut due = interval(RENEWAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_wanted() {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = due.tick() => self.say(nats, scenario, false).await,
                () = self.came.notified() => self.say(nats, scenario, true).await,
                () = self.listed_anew.notified() => self.say(nats, scenario, false).await,
                entry = pictures.next() => {
                    let headers = entry.message.headers.clone().unwrap_or_default();
                    match AccessUnit::parse(&headers, entry.message.payload.clone()) {
                        Ok(unit) if entry.past => self.remember(unit),
                        Ok(unit) => self.push(unit),
                        Err(error) => debug!(%scenario, %error, "a picture can't be read; another version's, perhaps"),
                    }
                }
            }
        }
    }

    async fn say(&self, nats: &Nats, scenario: &ScenarioId, key: bool) {
        let video = self.video.load(Ordering::Relaxed) > 0 || self.is_listed();
        let images = self.images.load(Ordering::Relaxed) > 0;
        if !video && !images {
            return;
        }
        let Ok(body) = serde_json::to_vec(&Watching { video, images, key }) else { return };
        if timeout(SAY_TIMEOUT, nats.client.publish(subjects::watching(scenario), body.into())).await.is_err() {
            debug!(%scenario, "could not say that it is watched");
        }
    }

    /// One that was there before the channel: players of HLS may ask this API for what another one has listed.
    pub(super) fn remember(&self, unit: AccessUnit) {
        lock(&self.recent).push(Arc::new(unit), true);
    }

    pub(super) fn push(&self, unit: AccessUnit) {
        let unit = Arc::new(unit);
        let mut recent = lock(&self.recent);
        recent.push(unit.clone(), false);
        // Within the lock: who subscribes sees it either there or here. Nobody may be listening.
        let _ = self.sender.send(unit);
        drop(recent);
        self.pictures.notify_waiters();
    }
}

/// One viewer's place in a channel, for as long as it is held.
pub(crate) struct Watch {
    channel: Arc<Channel>,
    kind: Kind,
}

impl Watch {
    pub(super) fn new(channel: Arc<Channel>, kind: Kind) -> Self {
        let watch = Self { channel, kind };
        watch.count().fetch_add(1, Ordering::Relaxed);
        watch.channel.came.notify_one();
        watch
    }

    fn count(&self) -> &AtomicUsize {
        match self.kind {
            Kind::Video => &self.channel.video,
            Kind::Images => &self.channel.images,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}
