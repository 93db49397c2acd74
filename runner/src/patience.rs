//! How long is waited for the server's answers.

use std::{future::Future, time::Duration};

use kadr_shared::nats::Nats;

/// One request. A repeated append or fact is found out, so that asking again early does no harm.
pub(crate) const REQUEST: Duration = Duration::from_secs(2);
/// Between two tries.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// The answer to a request; none if it does not come in time or its connection was replaced meanwhile: then the server may
/// or may not have done it, and it is to be asked again.
pub(crate) async fn answered<T>(nats: &Nats, limit: Duration, request: impl Future<Output = T>) -> Option<T> {
    let mut connections = nats.connections();
    tokio::select! {
        biased;
        answer = request => Some(answer),
        Ok(()) = connections.changed() => None,
        () = tokio::time::sleep(limit) => None,
    }
}
