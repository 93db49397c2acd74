//! Answers without an end: what is made for a caller goes on only while it takes it.
//!
//! An HTTP server asks for the next piece when there is room for it. A caller that stops reading would hold up all that stands
//! behind its answer, for as long as its connection lasts. So pieces are made by a task, which ends when a piece is not
//! taken in time, when the caller goes, and when the API does.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// Pieces that wait to be taken.
const AHEAD: usize = 2;
/// A caller that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(10);

/// The same pieces, for whom they are an answer.
pub(super) fn pumped<T: Send + 'static>(
    pieces: impl Stream<Item = T> + Send + 'static,
    closing: CancellationToken,
) -> impl Stream<Item = T> + Send + 'static {
    let (sender, taken) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let mut pieces = std::pin::pin!(pieces);
        loop {
            let piece = tokio::select! {
                () = closing.cancelled() => return,
                () = sender.closed() => return,
                piece = pieces.next() => piece,
            };
            let Some(piece) = piece else { return };
            let sent = tokio::select! {
                () = closing.cancelled() => return,
                sent = timeout(STALLED, sender.send(piece)) => sent,
            };
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    futures::stream::unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_not_made_for_ever() {
        let held = Arc::new(());
        let endless = |held: Arc<()>| futures::stream::unfold(held, |held| async { Some((1, held)) });
        let closing = CancellationToken::new();
        // Taken as long as it is wanted.
        let mut taken = Box::pin(pumped(endless(held.clone()), closing.clone()));
        for _ in 0..100 {
            assert_eq!(taken.next().await, Some(1));
        }
        // The caller stops reading; what stands behind its answer is let go, although the answer is still there.
        for _ in 0..2 * STALLED.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&held), 1);
        while taken.next().await.is_some() {}

        let mut taken = Box::pin(pumped(endless(held.clone()), closing.clone()));
        assert_eq!(taken.next().await, Some(1));
        closing.cancel();
        while taken.next().await.is_some() {}
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
