//! Settings as they are given: with a password, which goes no further than where it is encrypted.

use std::fmt;

use kadr_shared::{secret, settings::Settings};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// A scenario's settings, and its camera's password.
#[derive(Debug, PartialEq)]
pub(crate) struct Given {
    pub(crate) settings: Settings,
    pub(crate) password: Option<Password>,
}

/// Never shown.
#[derive(PartialEq)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut body = Value::deserialize(deserializer)?;
        let source = body.get_mut("source").and_then(Value::as_object_mut);
        let (password, secret) = source.map_or((None, None), |s| (s.remove("password"), s.remove("secret")));
        // It is this API's word for what it has kept.
        if secret.is_some() {
            return Err(D::Error::custom("unknown field `secret`: give source.password"));
        }
        let settings: Settings = serde_json::from_value(body).map_err(D::Error::custom)?;
        let password = match password {
            None | Some(Value::Null) => None,
            Some(_) if !settings.source.url.asks_for_password() => {
                return Err(D::Error::custom("source.password is for cameras: leave it out"));
            }
            Some(_) if settings.source.username.is_none() => {
                return Err(D::Error::custom("source.password needs source.username beside it"));
            }
            Some(Value::String(text)) if (1..=secret::LONGEST).contains(&text.len()) => Some(Password(text)),
            Some(_) => return Err(D::Error::custom("source.password is a text of 1 to 1024 bytes")),
        };
        Ok(Self { settings, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Given, String> {
        serde_json::from_str(&format!(r#"{{"source": {source}}}"#)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_password_is_taken_out_of_the_settings() {
        let given = parse(r#"{"url": "rtsp://cam/1", "username": "me", "password": "hunter2"}"#).unwrap();
        assert_eq!(given.password, Some(Password("hunter2".into())));
        assert!(!serde_json::to_string(&given.settings).unwrap().contains("hunter2"));
        assert!(!format!("{given:?}").contains("hunter2"));
        assert_eq!(parse(r#"{"url": "/a.mp4"}"#).unwrap().password, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_repeating_it() {
        for (source, words) in [
            (r#"{"url": "/a.mp4", "password": "hunter2"}"#, "for cameras"),
            (r#"{"url": "rtsp://cam/1", "password": "hunter2"}"#, "username"),
            (r#"{"url": "rtsp://cam/1", "username": "me", "password": 77}"#, "text"),
            (r#"{"url": "rtsp://cam/1", "username": "me", "password": ""}"#, "text"),
            (r#"{"url": "rtsp://cam/1", "secret": "0123456789abcdef"}"#, "secret"),
        ] {
            let error = parse(source).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }
}
