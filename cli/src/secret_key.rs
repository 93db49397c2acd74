//! The file with the key that cameras' passwords are encrypted with.

use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use kadr_shared::secret::SecretKey;

/// In the data folder of a system that is one process.
const FILE: &str = "secret.key";

/// The key in a file.
pub fn read(path: &Path) -> Result<SecretKey> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("can't read {} (secret_key_file): make one by `openssl rand -hex 32 > FILE`", path.display())
    })?;
    text.parse().with_context(|| format!("{} (secret_key_file) holds no key", path.display()))
}

/// The key file of a data folder; it is made if it is missing. Only its owner may read it.
pub fn of(data: &Path) -> Result<PathBuf> {
    let path = data.join(FILE);
    if path.exists() {
        return Ok(path);
    }
    let made = || format!("can't make {}, for cameras' passwords", path.display());
    std::fs::create_dir_all(data).with_context(made)?;
    // Whole or not at all: a key that was cut would lock all passwords away.
    let mut draft = tempfile::NamedTempFile::new_in(data).with_context(made)?;
    writeln!(draft, "{}", SecretKey::generate()?).with_context(made)?;
    match draft.persist_noclobber(&path) {
        Ok(_) => Ok(path),
        Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => Ok(path),
        Err(failed) => Err(failed.error).with_context(made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = of(folder.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(of(folder.path()).unwrap(), path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it stays");
        std::fs::write(&path, "hunter2").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("64 hexadecimal") && !error.contains("hunter2"), "{error}");
    }
}
