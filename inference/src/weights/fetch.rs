//! The download of a published file: streamed beside its place, checked, then put there in one step.
//!
//! What cannot be verified never gets the file's name. TLS is rustls without a provider of its own: the binary installs
//! one before it calls this.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use kadr_shared::catalog::WeightsFile;
use sha2::{Digest, Sha256};
use tokio::{fs, io::AsyncWriteExt};

use super::read::hex;

/// How long a download may stand still. There is no limit on the whole: it depends on the line.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until a connection is made.
    pub connect: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), idle: Duration::from_secs(30) }
    }
}

/// A download that did not end in a good file. Each says what to fetch by hand, from where, and where it belongs.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{file} (sha256 {sha256}) is published nowhere that kadr knows: put it into {folder}")]
    NotPublished { file: String, sha256: String, folder: PathBuf },
    #[error("can't download {0}")]
    Request(Wanted, #[source] reqwest::Error),
    #[error("can't download {wanted}: the server answered {status}")]
    Status { wanted: Wanted, status: u16 },
    #[error("the download of {wanted} broke off after {done} of {total} bytes")]
    Broken { wanted: Wanted, done: u64, total: u64, source: reqwest::Error },
    #[error("the download of {wanted} stood still for {seconds} s after {done} of {total} bytes")]
    Stalled { wanted: Wanted, seconds: u64, done: u64, total: u64 },
    #[error("what came as {wanted} has {found} bytes instead of {total}; it was deleted")]
    Size { wanted: Wanted, found: u64, total: u64 },
    #[error("what came as {wanted} has the sha256 {found}; it was deleted")]
    Digest { wanted: Wanted, found: String },
    #[error("{path} is being downloaded by another process")]
    Busy { path: PathBuf },
    #[error("can't write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// What was to be fetched, in words that let one do it by hand.
#[derive(Debug, Clone)]
pub struct Wanted {
    file: String,
    url: String,
    sha256: String,
    folder: PathBuf,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, url, sha256, folder } = self;
        write!(f, "{file} from {url} (sha256 {sha256}) into {}", folder.display())
    }
}

/// Downloads `file` into `folder`, making it if need be, and returns its path. `progress` is told bytes done and in all.
pub async fn fetch(
    file: &WeightsFile,
    folder: &Path,
    patience: Patience,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<PathBuf, FetchError> {
    let Some(url) = file.url.clone() else {
        return Err(FetchError::NotPublished {
            file: file.file.clone(),
            sha256: file.sha256.clone(),
            folder: folder.to_owned(),
        });
    };
    let wanted = Wanted { file: file.file.clone(), url, sha256: file.sha256.clone(), folder: folder.to_owned() };
    let part = folder.join(format!("{}.part", file.file));
    let write = |source| FetchError::Write { path: part.clone(), source };

    fs::create_dir_all(folder).await.map_err(|source| FetchError::Write { path: folder.to_owned(), source })?;
    let mut output = locked(&part).await?;
    let received = receive(file, &wanted, &mut output, patience, &mut progress, &write).await;
    if let Err(error) = received {
        // Half a file helps nobody, and the error that led here says more than one of deleting it.
        let _ = fs::remove_file(&part).await;
        return Err(error);
    }
    let path = folder.join(&file.file);
    fs::rename(&part, &path).await.map_err(|source| FetchError::Write { path: path.clone(), source })?;
    Ok(path)
}

/// The part file, empty and ours alone: two downloads into one file would mix.
async fn locked(part: &Path) -> Result<fs::File, FetchError> {
    let write = |source| FetchError::Write { path: part.to_owned(), source };
    // Not truncated on opening: it may be another's.
    let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(part).await.map_err(write)?;
    let file = file.into_std().await;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(FetchError::Busy { path: part.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(write(source)),
    }
    file.set_len(0).map_err(write)?;
    Ok(fs::File::from_std(file))
}

async fn receive(
    file: &WeightsFile,
    wanted: &Wanted,
    output: &mut fs::File,
    patience: Patience,
    progress: &mut (impl FnMut(u64, u64) + Send),
    write: &(impl Fn(io::Error) -> FetchError + Sync),
) -> Result<(), FetchError> {
    let total = file.bytes;
    let request = |source| FetchError::Request(wanted.clone(), source);
    let client = reqwest::Client::builder()
        .connect_timeout(patience.connect)
        .read_timeout(patience.idle)
        .build()
        .map_err(request)?;
    let response = client.get(&wanted.url).send().await.map_err(request)?;
    if !response.status().is_success() {
        return Err(FetchError::Status { wanted: wanted.clone(), status: response.status().as_u16() });
    }
    let mut body = response.bytes_stream();
    let (mut done, mut digest) = (0u64, Sha256::new());
    progress(done, total);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|source| match source.is_timeout() {
            true => FetchError::Stalled { wanted: wanted.clone(), seconds: patience.idle.as_secs(), done, total },
            false => FetchError::Broken { wanted: wanted.clone(), done, total, source },
        })?;
        done += piece.len() as u64;
        if done > total {
            break;
        }
        digest.update(&piece);
        output.write_all(&piece).await.map_err(write)?;
        progress(done, total);
    }
    if done != total {
        return Err(FetchError::Size { wanted: wanted.clone(), found: done, total });
    }
    let found = hex(&digest.finalize());
    if found != file.sha256 {
        return Err(FetchError::Digest { wanted: wanted.clone(), found });
    }
    output.flush().await.map_err(write)?;
    output.sync_all().await.map_err(write)
}
