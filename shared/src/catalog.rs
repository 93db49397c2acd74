//! The catalogue of models: names, labels, licences and the accepted files, read from `manifest.toml`.
//!
//! Opening weights is inference's business; here is only what may be opened and where it is published.

mod entry;

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

pub use self::entry::{EntryError, with_entry};
use crate::id::ModelName;

/// The models that kadr knows: those of folders' manifests, and those of the manifest that the binary carries.
#[derive(Debug, Clone)]
pub struct Catalog {
    models: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone)]
pub struct Model {
    pub name: ModelName,
    pub architecture: Architecture,
    pub scale: Scale,
    /// A class's label stands at the class's number.
    pub labels: Vec<String>,
    /// The weights' licence, as an SPDX expression.
    pub licence: String,
    /// The accepted files, the preferred one first.
    pub files: Vec<WeightsFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    Yolov8,
}

/// How deep and wide a network of an architecture is: one of the published scales, or factors of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Scale {
    Named(NamedScale),
    Custom { depth: f64, width: f64, ratio: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedScale {
    N,
    S,
    M,
    L,
    X,
}

/// A file that is accepted as a model's weights: nothing is opened unless its digest is this one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// Its name in a folder of models.
    pub file: String,
    /// Where it is published; none: it is not, and has to lie in the folder.
    #[serde(default)]
    pub url: Option<String>,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
    pub naming: Naming,
}

/// How a file names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// `model.0.conv.weight`, …: batch norm folded into weight and bias, or apart (`model.0.bn.running_mean`, …).
    Ultralytics,
    /// `net.b1.0.conv.weight`, `net.b1.0.bn.running_mean`, …: batch norm apart (eps 1e-3).
    Candle,
}

/// A manifest that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("can't read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} is no valid manifest of models")]
    Parse { path: String, source: Box<toml::de::Error> },
    #[error("{path}: model {model} names the labels {labels:?}, which are not there")]
    Labels { path: String, model: ModelName, labels: String },
    #[error("{path}: model {model} is there twice")]
    Twice { path: String, model: ModelName },
    #[error("{path}: model {model} accepts a file named {file:?}, which is no plain file name")]
    FileName { path: String, model: ModelName, file: String },
}

/// A name that the catalogue or a model does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownName {
    #[error("there is no model {name}; there are: {known}")]
    Model { name: ModelName, known: String },
    #[error("model {model} has no class {class:?}; it has: {known}")]
    Class { model: ModelName, class: String, known: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    labels: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    model: Vec<ManifestModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestModel {
    name: ModelName,
    architecture: Architecture,
    scale: Scale,
    labels: Labels,
    licence: String,
    files: Vec<WeightsFile>,
}

/// A list that models share, by its name, or a model's own.
#[derive(Deserialize)]
#[serde(untagged)]
enum Labels {
    Shared(String),
    Own(Vec<String>),
}

/// What a folder's manifest is named.
pub const MANIFEST: &str = "manifest.toml";

const BUILT_IN: &str = include_str!("../../models/manifest.toml");

impl Catalog {
    /// The catalogue that the binary carries.
    pub fn built_in() -> Result<Self, CatalogError> {
        Self::parse(BUILT_IN, "models/manifest.toml")
    }

    /// The models of all manifests in `folders`, and the built-in ones. Of a name that is there twice, the first one
    /// counts: a folder's own may stand for a built-in one.
    pub fn find<P: AsRef<Path>>(folders: &[P]) -> Result<Self, CatalogError> {
        let mut models: Vec<Model> = Vec::new();
        let mut add = |more: Self| {
            for model in more.models {
                if !models.iter().any(|known| known.name == model.name) {
                    models.push(model);
                }
            }
        };
        for folder in folders {
            match Self::read(&folder.as_ref().join(MANIFEST)) {
                Ok(catalog) => add(catalog),
                Err(CatalogError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        add(Self::built_in()?);
        Ok(Self { models })
    }

    /// The models of one manifest alone.
    pub fn read(path: &Path) -> Result<Self, CatalogError> {
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &shown),
            Err(source) => Err(CatalogError::Read { path: shown, source }),
        }
    }

    fn parse(text: &str, path: &str) -> Result<Self, CatalogError> {
        let manifest: Manifest = toml::from_str(text)
            .map_err(|source| CatalogError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let mut models: Vec<Model> = Vec::with_capacity(manifest.model.len());
        for m in manifest.model {
            let path = || path.to_owned();
            if models.iter().any(|known| known.name == m.name) {
                return Err(CatalogError::Twice { path: path(), model: m.name });
            }
            // A file is looked for by this name and written under it: it must not lead out of the folder.
            if let Some(bad) = m.files.iter().find(|f| Path::new(&f.file).file_name() != Some(f.file.as_ref())) {
                return Err(CatalogError::FileName { path: path(), model: m.name, file: bad.file.clone() });
            }
            let labels = match m.labels {
                Labels::Own(labels) => labels,
                Labels::Shared(list) => match manifest.labels.get(&list) {
                    Some(labels) => labels.clone(),
                    None => return Err(CatalogError::Labels { path: path(), model: m.name, labels: list }),
                },
            };
            let ManifestModel { name, architecture, scale, licence, files, .. } = m;
            models.push(Model { name, architecture, scale, labels, licence, files });
        }
        Ok(Self { models })
    }

    pub fn models(&self) -> &[Model] {
        &self.models
    }

    pub fn model(&self, name: &ModelName) -> Result<&Model, UnknownName> {
        self.models.iter().find(|m| &m.name == name).ok_or_else(|| UnknownName::Model {
            name: name.clone(),
            known: self.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Model {
    /// The classes' numbers; all of the model's if `labels` is empty.
    pub fn classes(&self, labels: &[String]) -> Result<Vec<usize>, UnknownName> {
        if labels.is_empty() {
            return Ok((0..self.labels.len()).collect());
        }
        labels
            .iter()
            .map(|label| {
                self.labels.iter().position(|known| known == label).ok_or_else(|| UnknownName::Class {
                    model: self.name.clone(),
                    class: label.chars().take(40).collect(),
                    known: self.labels.join(", "),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_names_five_scales_of_yolov8() {
        let catalog = Catalog::built_in().unwrap();
        let names: Vec<_> = catalog.models().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["yolov8n", "yolov8s", "yolov8m", "yolov8l", "yolov8x"]);
        for model in catalog.models() {
            assert_eq!(model.labels.len(), 80);
            assert!(model.files.iter().any(|f| f.url.is_some()), "{} can be fetched", model.name);
            assert!(model.files.iter().all(|f| f.sha256.len() == 64 && f.bytes > 1_000_000));
        }
        assert!(catalog.model(&crate::settings::DEFAULT_MODEL.parse().unwrap()).is_ok());
    }

    #[test]
    fn classes_are_known_by_label() {
        let catalog = Catalog::built_in().unwrap();
        let model = &catalog.models()[0];
        assert_eq!(model.classes(&["car".into(), "person".into()]).unwrap(), [2, 0]);
        assert_eq!(model.classes(&[]).unwrap().len(), 80);
        let error = model.classes(&["kar".into()]).unwrap_err().to_string();
        assert!(error.contains("\"kar\"") && error.contains("car"), "{error}");
    }

    #[test]
    fn folders_models_stand_before_the_built_in_ones_and_the_first_of_a_name_counts() {
        let entry = |name: &str, label: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\narchitecture = \"yolov8\"\nscale = \"s\"\nlabels = [\"{label}\"]\n\
                 licence = \"MIT\"\nfiles = []\n"
            )
        };
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        std::fs::write(folders[1].path().join(MANIFEST), entry("mine", "first") + &entry("yolov8m", "own")).unwrap();
        std::fs::write(folders[2].path().join(MANIFEST), entry("mine", "second")).unwrap();
        let catalog = Catalog::find(&folders).unwrap();
        let names: Vec<_> = catalog.models().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["mine", "yolov8m", "yolov8n", "yolov8s", "yolov8l", "yolov8x"]);
        assert_eq!((&*catalog.models()[0].labels[0], &*catalog.models()[1].labels[0]), ("first", "own"));
    }

    #[test]
    fn a_file_name_that_leads_elsewhere_is_refused() {
        let text = |file: &str| {
            format!(
                "[labels]\na = [\"x\"]\n[[model]]\nname = \"m\"\narchitecture = \"yolov8\"\nscale = \"n\"\nlabels = \"a\"\n\
                 licence = \"MIT\"\nfiles = [{{ file = \"{file}\", bytes = 1, sha256 = \"00\", naming = \"candle\" }}]\n"
            )
        };
        assert!(Catalog::parse(&text("w.safetensors"), "t").is_ok());
        for bad in ["../w", "a/b", "/w", "..", ""] {
            assert!(matches!(Catalog::parse(&text(bad), "t"), Err(CatalogError::FileName { .. })), "{bad}");
        }
    }
}
