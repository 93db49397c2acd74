//! Cameras' passwords, and what webhooks are signed with: encrypted in a bucket of their own, so that neither the log nor
//! an answer ever holds one.
//!
//! Settings name a secret; whoever has the key can read it. A secret is written once: what its name stands for never
//! changes. It goes with its scenario.

use std::{fmt, str::FromStr, time::Duration};

use async_nats::jetstream::{
    message::PublishMessage,
    stream::{LastRawMessageError, LastRawMessageErrorKind},
};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    id::{CommandId, ScenarioId},
    nats::Nats,
    publish::{PublishFailed, Stored, publish},
    subjects,
};

/// One request to the server.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer ones are a mistake.
pub const LONGEST: usize = 1024;
const KEY_LEN: usize = 32;

/// What passwords are encrypted with. All APIs and runners of a system have the same.
#[derive(Clone)]
pub struct SecretKey(LessSafeKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// What is no key. The text is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits, as `openssl rand -hex 32` makes them")]
pub struct KeyError;

/// The system has no random numbers to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// A secret's name within its scenario.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// What a secret of a scenario is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// A camera's password.
    Password,
    /// What a webhook's requests are signed with.
    Signing,
}

/// Not a secret's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret's name is 16 hexadecimal digits")]
pub struct NameError;

/// Why a secret can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the system gives no random numbers")]
    Randomness(#[from] NoRandomness),
    #[error("the password or secret can't be stored")]
    Store(#[from] PublishFailed),
    #[error("the password or secret can't be read")]
    Read(#[source] LastRawMessageError),
    #[error("NATS does not answer in time")]
    Silent,
    #[error(
        "the scenario's password or secret is not there any more: give it again by a PUT of the scenario's settings"
    )]
    Gone,
    #[error(
        "the scenario's password or secret was encrypted with another key: give all APIs and runners the same \
         secret_key_file"
    )]
    OtherKey,
    /// The name stands for another one.
    #[error("another password or secret was given for the same command")]
    Differs,
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let mut bytes = [0; KEY_LEN];
        if text.len() != 2 * KEY_LEN || !text.is_ascii() {
            return Err(KeyError);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = str::from_utf8(digits).map_err(|_| KeyError)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| KeyError)?;
        }
        Self::of(&bytes)
    }
}

impl SecretKey {
    fn of(bytes: &[u8]) -> Result<Self, KeyError> {
        UnboundKey::new(&CHACHA20_POLY1305, bytes).map(|key| Self(LessSafeKey::new(key))).map_err(|_| KeyError)
    }

    /// A new key's text.
    pub fn generate() -> Result<String, NoRandomness> {
        let mut bytes = [0_u8; KEY_LEN];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(hex(&bytes))
    }

    /// A nonce, and behind it the text, encrypted and bound to its place.
    fn seal(&self, place: &str, text: &str) -> Result<Vec<u8>, NoRandomness> {
        let mut nonce = [0_u8; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandomness)?;
        let mut sealed = text.as_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed)
            .map_err(|_| NoRandomness)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    fn open(&self, place: &str, sealed: &[u8]) -> Result<String, SecretError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(SecretError::OtherKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::OtherKey)?;
        let mut sealed = sealed.to_vec();
        let text = self.0.open_in_place(nonce, Aad::from(place), &mut sealed).map_err(|_| SecretError::OtherKey)?;
        String::from_utf8(text.to_vec()).map_err(|_| SecretError::OtherKey)
    }
}

impl SecretName {
    /// Follows from the command that brings the secret and from what it is for, so that a repeat means the same one.
    pub fn of(command: &CommandId, kind: SecretKind) -> Self {
        // No command's id holds a dot.
        let suffix = match kind {
            SecretKind::Password => "",
            SecretKind::Signing => ".signing",
        };
        let digest = digest::digest(&digest::SHA256, format!("{command}{suffix}").as_bytes());
        Self(hex(digest.as_ref().get(..8).unwrap_or_default()))
    }
}

impl TryFrom<String> for SecretName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 16 && text.bytes().all(digit) { Ok(Self(text)) } else { Err(NameError) }
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Keeps a password under a name. That it is there already is no error, unless it is another one.
pub async fn keep(
    nats: &Nats,
    key: &SecretKey,
    scenario: &ScenarioId,
    name: &SecretName,
    password: &str,
) -> Result<(), SecretError> {
    let subject = subjects::secret(scenario, name);
    let sealed = key.seal(&subject, password)?;
    let message = PublishMessage::build().payload(sealed.into()).expected_last_subject_sequence(0);
    let stored = timeout(PATIENCE, publish(&nats.jetstream, subject, message)).await;
    match stored.map_err(|_| SecretError::Silent)?? {
        Stored::At(_) => Ok(()),
        Stored::Conflict | Stored::SubjectFull => {
            let known = read(nats, key, scenario, name).await?;
            if known == password { Ok(()) } else { Err(SecretError::Differs) }
        }
    }
}

/// The password that a name stands for.
pub async fn read(
    nats: &Nats,
    key: &SecretKey,
    scenario: &ScenarioId,
    name: &SecretName,
) -> Result<String, SecretError> {
    let subject = subjects::secret(scenario, name);
    let read = async {
        let stream =
            nats.jetstream.get_stream_no_info(subjects::SECRETS_STREAM).await.map_err(|_| SecretError::Silent)?;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(message.payload),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Err(SecretError::Gone),
            Err(error) => Err(SecretError::Read(error)),
        }
    };
    let sealed = timeout(PATIENCE, read).await.map_err(|_| SecretError::Silent)??;
    key.open(&subject, &sealed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::generate().unwrap().parse().unwrap()
    }

    #[test]
    fn a_password_comes_back_at_its_place_with_its_key_only() {
        let key = key();
        let sealed = key.seal("gate", "hunter2").unwrap();
        assert_eq!(key.open("gate", &sealed).unwrap(), "hunter2");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(key.seal("gate", "hunter2").unwrap(), sealed, "no two are alike");
        assert!(matches!(key.open("door", &sealed), Err(SecretError::OtherKey)));
        assert!(matches!(self::key().open("gate", &sealed), Err(SecretError::OtherKey)));
        assert!(matches!(key.open("gate", &sealed[..5]), Err(SecretError::OtherKey)));
    }

    #[test]
    fn keys_and_names_are_hexadecimal() {
        assert!("00".repeat(32).parse::<SecretKey>().is_ok());
        for bad in ["", "00", &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(bad.parse::<SecretKey>().unwrap_err(), KeyError);
        }
        assert_eq!(format!("{:?}", key()), "SecretKey");
        let of = |kind| SecretName::of(&"k-1".parse().unwrap(), kind);
        let name = of(SecretKind::Password);
        assert_eq!(name, of(SecretKind::Password));
        assert_ne!(name, of(SecretKind::Signing));
        assert_eq!(SecretName::try_from(name.to_string()), Ok(name));
        assert_eq!(SecretName::try_from("../0123456789abc".to_owned()), Err(NameError));
    }
}
