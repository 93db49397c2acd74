//! A folder that stands for a user's: commands run in it, with a tiny model and nothing of the real environment.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::process::{Ended, Process};

/// The name of the tiny model.
pub(crate) const MODEL: &str = "tiny";
const SEED: u64 = 1;

/// It goes away with the test.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    /// With a model.
    pub(crate) fn new() -> Self {
        let home = Self::without_model();
        kadr_inference::testkit::write_tiny_model(&home.models(), SEED);
        home
    }

    pub(crate) fn without_model() -> Self {
        let folder = TempDir::with_prefix("kadr-test-").unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.path("models")
    }

    /// The manifest with one text in place of another, which must be there.
    pub(crate) fn change_manifest(&self, from: &str, to: &str) {
        let path = self.models().join("manifest.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} is in {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    /// `kadr`, here, with the tiny model's folder and no other setting.
    pub(crate) fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kadr"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KADR_")) {
            command.env_remove(name);
        }
        command.env("KADR_LOG", "warn").env("NO_COLOR", "1").env("KADR_MODELS", self.models());
        command.current_dir(self.folder()).args(arguments);
        command
    }

    /// Runs `kadr` to its end; arguments are separated by spaces.
    pub(crate) async fn kadr(&self, arguments: &str) -> Ended {
        Process::start(&mut self.command(arguments.split_whitespace())).ended().await
    }

    /// Analyses a file of this folder by the tiny model into another folder of it.
    pub(crate) async fn analyze(&self, file: &str, out: &str, options: &str) -> Ended {
        let arguments = ["analyze", file, "--out", out, "--model", MODEL].into_iter().chain(options.split_whitespace());
        Process::start(&mut self.command(arguments)).ended().await
    }

    /// Names of what is in a folder, sorted.
    pub(crate) fn names_in(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}
