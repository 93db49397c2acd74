//! SIGINT and SIGTERM: the first asks for an ordered shutdown, the second ends at once.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// As a shell reports a process ended by SIGINT.
pub const INTERRUPTED: u8 = 130;

/// A token that the first signal cancels. The second one ends the process.
pub fn first_signal() -> Result<CancellationToken> {
    let listen = |kind| signal(kind).context("can't listen for signals");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        first.cancel();
        either(&mut interrupt, &mut terminate).await;
        eprintln!("kadr: ended at once, by the second signal");
        std::process::exit(i32::from(INTERRUPTED));
    });
    Ok(token)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
