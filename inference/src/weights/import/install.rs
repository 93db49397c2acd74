//! The weights and their entry into a folder of models: each in one step, so that half of either is never there.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use kadr_shared::{
    catalog::{Architecture, EntryError, MANIFEST, Model, Naming, WeightsFile, with_entry},
    id::ModelName,
};
use safetensors::SafeTensorError;
use sha2::{Digest, Sha256};

use super::{super::read::hex, LabelError, Network, labels};

/// What was written.
#[derive(Debug)]
pub struct Installed {
    pub weights: PathBuf,
    pub manifest: PathBuf,
    pub bytes: u64,
    pub sha256: String,
}

/// A model that can't be put into a folder. Nothing of it is left there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error("{path} is there already: choose another name, or delete it")]
    There { path: PathBuf },
    #[error("{folder} is being changed by another import: try again when it is done")]
    Busy { folder: PathBuf },
    #[error("the model can't be added to {path}")]
    Entry { path: PathBuf, source: EntryError },
    #[error("can't read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("can't write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the weights can't be written as safetensors")]
    Format(#[from] SafeTensorError),
}

/// Writes `network` into `folder` as the model `name`, and makes the folder if it is missing. Blocks.
pub fn install(
    network: &Network,
    name: ModelName,
    labels: Vec<String>,
    licence: String,
    folder: &Path,
) -> Result<Installed, InstallError> {
    labels::check(&labels, network.classes)?;
    fs::create_dir_all(folder).map_err(|source| InstallError::Write { path: folder.to_owned(), source })?;
    let _lock = locked(folder)?;
    let file = format!("{name}.safetensors");
    let (weights, manifest) = (folder.join(&file), folder.join(MANIFEST));
    if fs::symlink_metadata(&weights).is_ok() {
        return Err(InstallError::There { path: weights });
    }
    let before = match fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(InstallError::Read { path: manifest, source }),
    };
    let content = safetensors::serialize(&network.tensors, None)?;
    let (bytes, sha256) = (content.len() as u64, hex(&Sha256::digest(&content)));
    let accepted = WeightsFile { file, url: None, bytes, sha256: sha256.clone(), naming: Naming::Ultralytics };
    let model = Model {
        name,
        architecture: Architecture::Yolov8,
        scale: network.scale,
        labels,
        licence,
        files: vec![accepted],
    };
    let after = with_entry(&before, &manifest.display().to_string(), &model)
        .map_err(|source| InstallError::Entry { path: manifest.clone(), source })?;
    write(&weights, &content)?;
    if let Err(error) = write(&manifest, after.as_bytes()) {
        // Weights that no manifest names are of no use.
        let _ = fs::remove_file(&weights);
        return Err(error);
    }
    Ok(Installed { weights, manifest, bytes, sha256 })
}

/// Two imports into one manifest at a time would lose one of them. Held until the file is closed.
fn locked(folder: &Path) -> Result<File, InstallError> {
    let write = |source| InstallError::Write { path: folder.to_owned(), source };
    let file = File::open(folder).map_err(write)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(InstallError::Busy { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(write(source)),
    }
}

/// Beside its place first.
fn write(path: &Path, content: &[u8]) -> Result<(), InstallError> {
    let part = path.with_added_extension("part");
    let written = File::create(&part)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&part);
        InstallError::Write { path: path.to_owned(), source }
    })
}
