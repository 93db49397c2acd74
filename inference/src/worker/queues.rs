//! Between pullers and lanes: one short queue for cameras' frames, one for files'.
//!
//! Both are bounded and full ones make their pullers wait, so that frames stay with the server, where any worker can take
//! them. Cameras come first, but every tenth turn is the files', so that they never starve.

use std::sync::atomic::{AtomicUsize, Ordering};

use kadr_shared::subjects::FrameClass;
use tokio::sync::{Mutex, mpsc};

/// One turn in so many begins with the files' queue.
const BATCH_TURN: usize = 10;

/// The way into the queues. They close when the last of these is gone.
#[derive(Debug)]
pub(super) struct Entry<T> {
    live: mpsc::Sender<T>,
    batch: mpsc::Sender<T>,
}

/// The way out.
#[derive(Debug)]
pub(super) struct Queues<T> {
    turn: AtomicUsize,
    receivers: Mutex<(mpsc::Receiver<T>, mpsc::Receiver<T>)>,
}

/// Two queues of `capacity` each.
pub(super) fn queues<T>(capacity: usize) -> (Entry<T>, Queues<T>) {
    let (live, live_out) = mpsc::channel(capacity);
    let (batch, batch_out) = mpsc::channel(capacity);
    (Entry { live, batch }, Queues { turn: AtomicUsize::new(1), receivers: Mutex::new((live_out, batch_out)) })
}

impl<T> Entry<T> {
    pub(super) fn of(&self, class: FrameClass) -> mpsc::Sender<T> {
        match class {
            FrameClass::Live => self.live.clone(),
            FrameClass::Batch => self.batch.clone(),
        }
    }
}

impl<T> Queues<T> {
    /// The next frame and what is there besides, but not more than `most`; nothing once both queues are closed and empty.
    /// Those who wait are served in turn.
    pub(super) async fn take(&self, most: usize) -> Vec<T> {
        let mut receivers = self.receivers.lock().await;
        let (live, batch) = &mut *receivers;
        let mut taken = Vec::with_capacity(most);
        while taken.len() < most {
            let (first, second) = match self.turn.load(Ordering::Relaxed).is_multiple_of(BATCH_TURN) {
                true => (&mut *batch, &mut *live),
                false => (&mut *live, &mut *batch),
            };
            let next = if taken.is_empty() {
                tokio::select! {
                    biased;
                    Some(frame) = first.recv() => Some(frame),
                    Some(frame) = second.recv() => Some(frame),
                    else => None,
                }
            } else {
                first.try_recv().or_else(|_| second.try_recv()).ok()
            };
            let Some(frame) = next else { break };
            taken.push(frame);
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cameras_come_first_and_files_get_a_tenth() {
        let (entry, queues) = queues(200);
        for _ in 0..200 {
            entry.of(FrameClass::Batch).try_send(FrameClass::Batch).unwrap();
            entry.of(FrameClass::Live).try_send(FrameClass::Live).unwrap();
        }
        let mut batch = 0;
        for _ in 0..100 {
            batch += usize::from(queues.take(1).await == [FrameClass::Batch]);
        }
        assert_eq!(batch, 10);
    }

    #[tokio::test]
    async fn files_have_everything_while_no_camera_sends_and_what_is_queued_outlives_the_entry() {
        let (entry, queues) = queues(3);
        for frame in 0..3 {
            entry.of(FrameClass::Batch).try_send(frame).unwrap();
        }
        drop(entry);
        for frame in 0..3 {
            assert_eq!(queues.take(1).await, [frame]);
        }
        assert_eq!(queues.take(1).await, [0; 0]);
    }

    #[tokio::test]
    async fn several_are_taken_at_a_time_if_they_are_there_and_none_is_waited_for() {
        let (entry, queues) = queues(5);
        for frame in 0..5 {
            entry.of(if frame < 2 { FrameClass::Live } else { FrameClass::Batch }).try_send(frame).unwrap();
        }
        assert_eq!(queues.take(4).await, [0, 1, 2, 3]);
        assert_eq!(queues.take(4).await, [4]);
    }
}
