//! Which files a folder or a pattern stands for, and in which order.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::order::natural;
use crate::source::{SourceError, explain};

/// Their names alone take 100 MB.
const MOST: usize = 1_000_000;

/// Whether a path that does not exist may be a pattern.
pub(in crate::source) fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// The JPEG and PNG files of a folder, by their names. Hidden ones, as some systems put beside others, are left out.
pub(in crate::source) fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let is_image = |name: &OsStr| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        !name.starts_with('.') && [".jpg", ".jpeg", ".png"].iter().any(|end| name.ends_with(end))
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| explain(folder, error))? {
        let entry = entry.map_err(|error| explain(folder, error))?;
        if is_image(&entry.file_name()) && entry.path().is_file() {
            push(&mut paths, entry.path(), folder)?;
        }
    }
    if paths.is_empty() {
        return Err(SourceError::NoImages { path: folder.to_owned() });
    }
    Ok(ordered(paths))
}

/// The files that a pattern names.
pub(in crate::source) fn matching(pattern: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let text = pattern.to_string_lossy().into_owned();
    let mut options = glob::MatchOptions::new();
    (options.require_literal_separator, options.require_literal_leading_dot) = (true, true);
    let matches = glob::glob_with(&text, options)
        .map_err(|error| SourceError::Pattern { pattern: text.clone(), what: error.msg })?;
    let mut paths = Vec::new();
    // A folder that can't be looked into has no files that could be read.
    for path in matches.filter_map(Result::ok).filter(|path| path.is_file()) {
        push(&mut paths, path, pattern)?;
    }
    if paths.is_empty() {
        return Err(SourceError::NoMatch { pattern: text });
    }
    Ok(ordered(paths))
}

fn push(paths: &mut Vec<PathBuf>, path: PathBuf, from: &Path) -> Result<(), SourceError> {
    if paths.len() == MOST {
        return Err(SourceError::TooMany { path: from.display().to_string(), most: MOST });
    }
    paths.push(path);
    Ok(())
}

fn ordered(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort_by(|a, b| natural(a.as_os_str().as_encoded_bytes(), b.as_os_str().as_encoded_bytes()));
    paths
}
