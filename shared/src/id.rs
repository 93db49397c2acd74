//! Names of things: scenarios, runs, runners, commands. Each is a token that fits into one part of a NATS subject.
//!
//! Parsing happens at the edge; past it a name is known to be well-formed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// Why a name was not accepted. The text says what a good one looks like and quotes at most a few characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("a {what} can't be empty: {rule}")]
    Empty { what: &'static str, rule: &'static str },
    #[error("a {what} has at most {max} characters, this one has {len}")]
    TooLong { what: &'static str, max: usize, len: usize },
    #[error("{found:?} is not allowed in a {what}: {rule}")]
    Character { what: &'static str, found: char, rule: &'static str },
    #[error("{found:?} is no {what}: a UUID is wanted")]
    Uuid { what: &'static str, found: String },
}

/// What the names of one kind look like.
struct Rule {
    what: &'static str,
    text: &'static str,
    max: usize,
    first: fn(char) -> bool,
    rest: fn(char) -> bool,
}

impl Rule {
    fn check(&self, text: &str) -> Result<(), IdError> {
        let len = text.chars().count();
        if len > self.max {
            return Err(IdError::TooLong { what: self.what, max: self.max, len });
        }
        let mut characters = text.chars();
        let first = characters.next().ok_or(IdError::Empty { what: self.what, rule: self.text })?;
        let bad = if (self.first)(first) { characters.find(|&c| !(self.rest)(c)) } else { Some(first) };
        match bad {
            Some(found) => Err(IdError::Character { what: self.what, found, rule: self.text }),
            None => Ok(()),
        }
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                $rule.check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

token!(
    /// A scenario's name, chosen by its user: `[a-z0-9][a-z0-9_-]{0,62}`. Must not be personal data: the log keeps it.
    ScenarioId,
    Rule {
        what: "scenario id",
        text: "it is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit",
        max: 63,
        first: lower_or_digit,
        rest: |c| lower_or_digit(c) || c == '-' || c == '_',
    }
);

token!(
    /// A command's key: the caller's `Idempotency-Key`, or one made for it. A key is used once in a scenario.
    CommandId,
    Rule {
        what: "command key",
        text: "it is made of A-Z, a-z, 0-9, '-' and '_'",
        max: 128,
        first: |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
        rest: |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
    }
);

token!(
    /// One process that runs scenarios. A new process is a new runner.
    RunnerId,
    Rule {
        what: "runner id",
        text: "it is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit",
        max: 63,
        first: lower_or_digit,
        rest: |c| lower_or_digit(c) || c == '-' || c == '_',
    }
);

token!(
    /// One process that analyses frames. A new process is a new worker.
    WorkerId,
    Rule {
        what: "worker id",
        text: "it is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit",
        max: 63,
        first: lower_or_digit,
        rest: |c| lower_or_digit(c) || c == '-' || c == '_',
    }
);

token!(
    /// A model's name in the catalogue.
    ModelName,
    Rule {
        what: "model name",
        text: "it is made of a-z, 0-9, '-' and '_', and begins with a letter or a digit",
        max: 63,
        first: lower_or_digit,
        rest: |c| lower_or_digit(c) || c == '-' || c == '_',
    }
);

impl CommandId {
    /// A key nobody else has used.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string())
    }
}

impl RunnerId {
    /// A name for this process.
    pub fn generate() -> Self {
        Self(format!("runner-{}", Uuid::now_v7()))
    }
}

impl WorkerId {
    /// A name for this process.
    pub fn generate() -> Self {
        Self(format!("worker-{}", Uuid::now_v7()))
    }
}

/// One run of a scenario, from Start to inactive. Frame numbers count within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    pub const fn from_u128(value: u128) -> Self {
        Self(Uuid::from_u128(value))
    }

    /// When it was made, by the clock of whoever made it; none: its name does not tell.
    pub fn made_at(self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(i64::from(nanos / 1_000_000))?;
        Some(Timestamp::from_millis(millis))
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| IdError::Uuid { what: "run", found: text.chars().take(40).collect() })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_ids_fit_one_subject_token() {
        for good in ["gate", "0", "a-b_c", &"a".repeat(63)] {
            assert_eq!(good.parse::<ScenarioId>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a b", "-a", "Gate", "a*", "a>", "кадр", &"a".repeat(64), &"a".repeat(10_000)] {
            let error = bad.parse::<ScenarioId>().unwrap_err().to_string();
            assert!(error.len() < 200, "an error must not repeat what was sent: {error}");
        }
    }

    #[test]
    fn ids_are_parsed_when_read() {
        assert!(serde_json::from_str::<ScenarioId>("\"a.b\"").is_err());
        assert!(serde_json::from_str::<CommandId>("\"a b\"").is_err());
        assert!(serde_json::from_str::<RunId>("\"x\"").is_err());
        let run = RunId::generate();
        assert!(Timestamp::now().since(run.made_at().unwrap()).as_secs() < 60);
        assert_eq!(RunId::from_u128(7).made_at(), None);
        assert_eq!(serde_json::from_str::<RunId>(&serde_json::to_string(&run).unwrap()).unwrap(), run);
    }
}
