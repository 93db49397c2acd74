//! Takes away the recordings of scenarios that were deleted, also of those deleted while this runner was away.
//!
//! How far the log was read for it stands in a file beside them, so that the deletion of a scenario takes nothing of a
//! later one with its name. Detections are the orchestrator's to erase.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::jetstream;
use kadr_shared::{
    id::ScenarioId,
    nats::Nats,
    subjects,
    tail::{Entry, Tail},
    telemetry::chain,
};
use tokio::{fs, time::timeout};
use tracing::{info, warn};

/// No scenario's folder has such a name.
const READ_UP_TO: &str = ".erased";
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

/// Follows deletions. Never returns.
pub(crate) async fn follow(nats: Nats, recordings: PathBuf) {
    let from = loop {
        match position(&nats, &recordings).await {
            Ok(position) => break position + 1,
            Err(error) => {
                warn!(error, "can't find out which recordings to erase, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let mut deletions = Tail::new(nats.jetstream.clone(), subjects::EVENTS, subjects::DELETIONS, from);
    loop {
        let deletion = deletions.next().await;
        while let Err(error) = erase(&recordings, &deletion).await {
            warn!(error = chain(&error), "can't erase a deleted scenario's recordings, trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// The sequence up to which deletions are done. In a new folder there is nothing to erase: the log's end.
async fn position(nats: &Nats, recordings: &Path) -> Result<u64, String> {
    match fs::read_to_string(recordings.join(READ_UP_TO)).await {
        Ok(text) => text.trim().parse().map_err(|_| format!("{READ_UP_TO} in {} is damaged", recordings.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let end = timeout(ASK_TIMEOUT, log_end(&nats.jetstream)).await.map_err(|_| "NATS does not answer")??;
            write_position(recordings, end).await.map_err(|e| chain(&e))?;
            Ok(end)
        }
        Err(error) => Err(chain(&error)),
    }
}

async fn log_end(jetstream: &jetstream::Context) -> Result<u64, String> {
    let stream = jetstream.get_stream(subjects::EVENTS).await.map_err(|e| chain(&e))?;
    Ok(stream.cached_info().state.last_sequence)
}

async fn erase(recordings: &Path, deletion: &Entry) -> std::io::Result<()> {
    // An id is one plain name: it leads nowhere else.
    let scenario: Option<ScenarioId> = subjects::scenario_in(&deletion.message.subject);
    if let Some(scenario) = scenario {
        match fs::remove_dir_all(recordings.join(scenario.as_str())).await {
            Ok(()) => info!(%scenario, "erased its recordings"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    write_position(recordings, deletion.seq).await
}

/// Whole or not at all.
async fn write_position(recordings: &Path, seq: u64) -> std::io::Result<()> {
    let draft = recordings.join(format!("{READ_UP_TO}.new"));
    fs::write(&draft, seq.to_string()).await?;
    fs::rename(draft, recordings.join(READ_UP_TO)).await
}
