//! Where weights lie: a list of folders, searched in order. Nothing leaves here unless its digest is an accepted one.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use kadr_shared::catalog::{Model, WeightsFile};
use sha2::{Digest, Sha256};

use super::{
    fetch::{FetchError, Patience, fetch},
    read::hex,
};

/// Folders that may hold weights, the first one with a good file wins.
#[derive(Debug, Clone)]
pub struct Store {
    folders: Vec<PathBuf>,
}

/// A file whose size and digest are accepted, as it was when it was checked: nobody can change it in between.
#[derive(Clone)]
pub struct VerifiedWeights {
    pub path: PathBuf,
    pub file: WeightsFile,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for VerifiedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedWeights").field("path", &self.path).field("file", &self.file).finish_non_exhaustive()
    }
}

/// Why a model has no weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(
        "no weights of model {model}: {files} is in none of the folders {folders}; run `kadr models fetch {model}`"
    )]
    NotFound { model: String, files: String, folders: String },
    #[error(
        "{path} is not accepted as weights of model {model}: it has {found} bytes, wanted are {wanted}; it may be cut \
         short or another file: delete it and run `kadr models fetch {model}`"
    )]
    Size { model: String, path: PathBuf, found: u64, wanted: String },
    #[error(
        "{path} is not accepted as weights of model {model}: its sha256 is {found}, wanted is {wanted}; it is damaged or \
         another file: delete it and run `kadr models fetch {model}`"
    )]
    Digest { model: String, path: PathBuf, found: String, wanted: String },
    #[error("can't read {path}, the weights of model {model}")]
    Read { model: String, path: PathBuf, source: io::Error },
}

impl Store {
    pub fn new<P: Into<PathBuf>>(folders: impl IntoIterator<Item = P>) -> Self {
        Self { folders: folders.into_iter().map(Into::into).collect() }
    }

    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The first good file of `model`. A bad file is told of only if no folder holds a good one. Blocks: it reads and
    /// hashes a file of up to some hundred megabytes.
    pub fn locate(&self, model: &Model) -> Result<VerifiedWeights, WeightsError> {
        let names = file_names(model);
        let mut first_bad = None;
        for folder in &self.folders {
            for name in &names {
                match verified(model, name, &folder.join(name)) {
                    Ok(Some(weights)) => return Ok(weights),
                    Ok(None) => {}
                    Err(error) => first_bad = first_bad.or(Some(error)),
                }
            }
        }
        Err(first_bad.unwrap_or_else(|| WeightsError::NotFound {
            model: model.name.to_string(),
            files: names.join(" or "),
            folders: self.folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "),
        }))
    }

    /// Downloads the first published file of `model` into `folder`; `progress` is told bytes done and in all.
    pub async fn fetch(
        &self,
        model: &Model,
        folder: &Path,
        progress: impl FnMut(u64, u64) + Send,
    ) -> Result<PathBuf, FetchError> {
        let file = model.files.iter().find(|f| f.url.is_some()).or(model.files.first());
        let file = file.ok_or_else(|| FetchError::NotPublished {
            file: format!("weights of model {}", model.name),
            folder: folder.to_owned(),
            sha256: "none".into(),
        })?;
        fetch(file, folder, Patience::default(), progress).await
    }
}

/// The distinct names of a model's accepted files, the preferred first.
fn file_names(model: &Model) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for file in &model.files {
        if !names.contains(&file.file.as_str()) {
            names.push(&file.file);
        }
    }
    names
}

/// `None`: there is no such file.
fn verified(model: &Model, name: &str, path: &Path) -> Result<Option<VerifiedWeights>, WeightsError> {
    let read = |source| WeightsError::Read { model: model.name.to_string(), path: path.to_owned(), source };
    let mut opened = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(read(e)),
    };
    // The size is looked at first, so that a wrong file of any size is not read.
    let found = opened.metadata().map_err(read)?.len();
    let accepted = || model.files.iter().filter(|f| f.file == name);
    if !accepted().any(|f| f.bytes == found) {
        let wanted = accepted().map(|f| f.bytes.to_string()).collect::<Vec<_>>().join(" or ");
        return Err(WeightsError::Size { model: model.name.to_string(), path: path.to_owned(), found, wanted });
    }
    let mut bytes = Vec::new();
    opened.by_ref().take(found).read_to_end(&mut bytes).map_err(read)?;
    let digest = hex(&Sha256::digest(&bytes));
    match accepted().find(|f| f.sha256 == digest) {
        Some(file) => Ok(Some(VerifiedWeights { path: path.to_owned(), file: file.clone(), bytes })),
        None => Err(WeightsError::Digest {
            model: model.name.to_string(),
            path: path.to_owned(),
            found: digest,
            wanted: accepted().map(|f| f.sha256.clone()).collect::<Vec<_>>().join(" or "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::catalog::{Architecture, NamedScale, Naming, Scale};

    use super::*;

    fn accepted(bytes: &[u8]) -> WeightsFile {
        WeightsFile {
            file: "w.safetensors".into(),
            url: None,
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
            naming: Naming::Candle,
        }
    }

    fn model(files: Vec<WeightsFile>) -> Model {
        Model {
            name: "m".parse().unwrap(),
            architecture: Architecture::Yolov8,
            scale: Scale::Named(NamedScale::N),
            labels: vec!["x".into()],
            licence: "MIT".into(),
            files,
        }
    }

    fn folder_with(bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w.safetensors"), bytes).unwrap();
        folder
    }

    #[test]
    fn a_good_file_in_a_later_folder_is_found_behind_a_bad_one() {
        let (empty, bad, good) = (tempfile::tempdir().unwrap(), folder_with(b"wrong"), folder_with(b"right"));
        let store = Store::new([empty.path(), bad.path(), good.path()]);
        let found = store.locate(&model(vec![accepted(b"other one"), accepted(b"right")])).unwrap();
        assert_eq!((found.bytes.as_slice(), found.path.parent().unwrap()), (b"right".as_slice(), good.path()));
        assert_eq!(found.file, accepted(b"right"));
    }

    #[test]
    fn a_file_of_another_content_is_refused_with_both_digests_and_what_to_do() {
        let bad = folder_with(b"wrong");
        let error = Store::new([bad.path()]).locate(&model(vec![accepted(b"right")])).unwrap_err();
        assert!(matches!(error, WeightsError::Digest { .. }));
        let text = error.to_string();
        for part in ["w.safetensors", &accepted(b"wrong").sha256, &accepted(b"right").sha256, "kadr models fetch m"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_file_cut_short_is_refused_with_both_sizes() {
        let bad = folder_with(b"righ");
        let error = Store::new([bad.path()]).locate(&model(vec![accepted(b"right")])).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, WeightsError::Size { found: 4, .. }));
        assert!(text.contains("has 4 bytes") && text.contains("wanted are 5") && text.contains("delete it"), "{text}");
    }

    #[test]
    fn nothing_found_names_the_folders_and_the_files() {
        let empty = tempfile::tempdir().unwrap();
        let text = Store::new([empty.path()]).locate(&model(vec![accepted(b"right")])).unwrap_err().to_string();
        assert!(text.contains(&empty.path().display().to_string()) && text.contains("w.safetensors"), "{text}");
    }

    #[test]
    fn a_folder_of_that_name_is_an_error_and_no_panic() {
        let odd = tempfile::tempdir().unwrap();
        std::fs::create_dir(odd.path().join("w.safetensors")).unwrap();
        assert!(Store::new([odd.path()]).locate(&model(vec![accepted(b"right")])).is_err());
    }
}
