//! One more model at the end of a manifest, as text: what people have written there stays as it is.
//!
//! Nothing is read from or written to a disk here.

use std::fmt::Write as _;

use toml::Value;

use super::{Architecture, Catalog, CatalogError, Model, NamedScale, Naming, Scale};

/// A model that can't be added to a manifest.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("the manifest can't be added to")]
    Before(#[source] CatalogError),
    #[error("there is a model {0} in it already: choose another name")]
    Taken(crate::id::ModelName),
    #[error("the manifest with the new model would not be valid; is `model` written as a list in one line?")]
    After(#[source] CatalogError),
}

/// `manifest` (at `path`, for messages) with `model` at its end.
pub fn with_entry(manifest: &str, path: &str, model: &Model) -> Result<String, EntryError> {
    let before = Catalog::parse(manifest, path).map_err(EntryError::Before)?;
    if before.model(&model.name).is_ok() {
        return Err(EntryError::Taken(model.name.clone()));
    }
    let mut text = manifest.trim_end().to_owned();
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(&entry(model));
    Catalog::parse(&text, path).map_err(EntryError::After)?;
    Ok(text)
}

fn entry(model: &Model) -> String {
    let string = |text: &str| Value::from(text).to_string();
    let architecture = match model.architecture {
        Architecture::Yolov8 => "yolov8",
    };
    let scale = match model.scale {
        Scale::Named(scale) => string(scale.name()),
        Scale::Custom { depth, width, ratio } => {
            format!("{{ depth = {depth:?}, width = {width:?}, ratio = {ratio:?} }}")
        }
    };
    let labels = model.labels.iter().map(|label| string(label)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "[[model]]\nname = {}\narchitecture = \"{architecture}\"\nscale = {scale}\nlabels = [{labels}]\nlicence = {}\n",
        string(model.name.as_str()),
        string(&model.licence),
    );
    for file in &model.files {
        let naming = match file.naming {
            Naming::Ultralytics => "ultralytics",
            Naming::Candle => "candle",
        };
        // Writing to a String can't fail.
        let _ = write!(text, "\n[[model.files]]\nfile = {}\n", string(&file.file));
        if let Some(url) = &file.url {
            let _ = writeln!(text, "url = {}", string(url));
        }
        let _ = writeln!(text, "bytes = {}\nsha256 = {}\nnaming = \"{naming}\"", file.bytes, string(&file.sha256));
    }
    text
}

impl NamedScale {
    pub const ALL: [Self; 5] = [Self::N, Self::S, Self::M, Self::L, Self::X];

    /// As it is written in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::N => "n",
            Self::S => "s",
            Self::M => "m",
            Self::L => "l",
            Self::X => "x",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::WeightsFile, *};

    fn model(name: &str, scale: Scale, labels: &[&str]) -> Model {
        Model {
            name: name.parse().unwrap(),
            architecture: Architecture::Yolov8,
            scale,
            labels: labels.iter().map(|&l| l.to_owned()).collect(),
            licence: "AGPL-3.0 \"or\" not".into(),
            files: vec![WeightsFile {
                file: "w.safetensors".into(),
                url: None,
                bytes: 7,
                sha256: "00".into(),
                naming: Naming::Ultralytics,
            }],
        }
    }

    #[test]
    fn what_was_there_stays_and_what_was_added_is_read_back() {
        let custom = Scale::Custom { depth: 1.0, width: 0.015625, ratio: 2.0 };
        let odd = ["it's", "a \"quote\"", "back\\slash", "ключ", "'''", "\u{7f}"];
        let built_in = super::super::BUILT_IN;
        let text = with_entry(built_in, "t", &model("a", custom, &odd)).unwrap();
        let text = with_entry(&text, "t", &model("b", Scale::Named(NamedScale::S), &["x"])).unwrap();
        assert!(text.starts_with(built_in.trim_end()));
        let catalog = Catalog::parse(&text, "t").unwrap();
        let [.., a, b] = catalog.models() else { panic!("two models were added") };
        assert_eq!((a.labels.as_slice(), a.scale), (odd.map(String::from).as_slice(), custom));
        assert_eq!((b.scale, b.files.clone()), (Scale::Named(NamedScale::S), model("b", b.scale, &[]).files));
        assert_eq!(b.licence, "AGPL-3.0 \"or\" not");
    }

    #[test]
    fn a_manifest_may_begin_empty_and_a_name_is_given_once() {
        let one = model("a", Scale::Named(NamedScale::N), &["x"]);
        let text = with_entry("", "t", &one).unwrap();
        assert!(matches!(with_entry(&text, "t", &one), Err(EntryError::Taken(_))));
        assert!(matches!(with_entry("model = 3", "t", &one), Err(EntryError::Before(_))));
        assert!(matches!(with_entry("model = []", "t", &one), Err(EntryError::After(_))));
    }
}
