//! Settings as they are given: with secrets, which go no further than where they are encrypted.

use std::fmt;

use kadr_shared::{
    secret::{self, SecretKind},
    settings::{Record, Recorded, Settings, SourceUrl},
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// A scenario's settings, and what was given with them that is never shown.
#[derive(Debug, PartialEq)]
pub(crate) struct Given {
    pub(crate) settings: Settings,
    pub(crate) secrets: Vec<(SecretKind, Secret)>,
}

/// Never shown.
#[derive(PartialEq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut body = Value::deserialize(deserializer)?;
        let mut take = |part: &str, field: &str| {
            let value = body.pointer_mut(part).and_then(Value::as_object_mut).and_then(|part| part.remove(field));
            value.filter(|value| !value.is_null())
        };
        let (password, signing) = (take("/source", "password"), take("/outputs/webhook", "secret"));
        // It is this API's word for what it has kept.
        if take("/source", "secret").is_some() {
            return Err(D::Error::custom("unknown field `secret`: give source.password"));
        }
        let settings: Settings = serde_json::from_value(body).map_err(D::Error::custom)?;
        if password.is_some() && !settings.source.url.asks_for_password() {
            return Err(D::Error::custom("source.password is for cameras: leave it out"));
        }
        if password.is_some() && settings.source.username.is_none() {
            return Err(D::Error::custom("source.password needs source.username beside it"));
        }
        if let Some(record) = settings.outputs.record {
            recordable(&settings.source.url, record).map_err(D::Error::custom)?;
        }
        let mut secrets = Vec::new();
        let given = [
            (SecretKind::Password, "source.password", password),
            (SecretKind::Signing, "outputs.webhook.secret", signing),
        ];
        for (kind, field, value) in given {
            match value {
                None => {}
                Some(Value::String(text)) if (1..=secret::LONGEST).contains(&text.len()) => {
                    secrets.push((kind, Secret(text)));
                }
                Some(_) => return Err(D::Error::custom(format!("{field} is a text of 1 to 1024 bytes"))),
            }
        }
        Ok(Self { settings, secrets })
    }
}

/// Whether what a source gives can be recorded so.
fn recordable(url: &SourceUrl, record: Record) -> Result<(), &'static str> {
    match (url, record.what) {
        (SourceUrl::File(_), _) => Err("outputs.record is for cameras: a file's run has its video (outputs.video)"),
        (SourceUrl::Http(_) | SourceUrl::Push | SourceUrl::Nats(_), Recorded::Untouched) => Err(
            "outputs.record.what is annotated for a stream of images: only a camera's own H.264 can be kept untouched",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Given, String> {
        serde_json::from_str(&format!(r#"{{"source": {source}}}"#)).map_err(|e| e.to_string())
    }

    #[test]
    fn what_can_not_be_recorded_is_refused() {
        let parse = |url: &str, what: &str| {
            let body = format!(r#"{{"source": {{"url": "{url}"}}, "outputs": {{"record": {{"what": "{what}"}}}}}}"#);
            serde_json::from_str::<Given>(&body).map_err(|error| error.to_string())
        };
        assert!(parse("rtsp://cam/1", "untouched").is_ok() && parse("push:", "annotated").is_ok());
        assert!(parse("/a.mp4", "annotated").unwrap_err().contains("for cameras"));
        assert!(parse("http://cam/1", "untouched").unwrap_err().contains("stream of images"));
    }

    #[test]
    fn secrets_are_taken_out_of_the_settings() {
        let given = parse(r#"{"url": "rtsp://cam/1", "username": "me", "password": "hunter2"}"#).unwrap();
        assert_eq!(given.secrets, [(SecretKind::Password, Secret("hunter2".into()))]);
        assert!(!serde_json::to_string(&given.settings).unwrap().contains("hunter2"));
        assert!(!format!("{given:?}").contains("hunter2"));
        assert_eq!(parse(r#"{"url": "/a.mp4"}"#).unwrap().secrets, []);

        let hook =
            r#"{"source": {"url": "/a.mp4"}, "outputs": {"webhook": {"url": "http://b/", "secret": "hunter2"}}}"#;
        let given: Given = serde_json::from_str(hook).unwrap();
        assert_eq!(given.secrets, [(SecretKind::Signing, Secret("hunter2".into()))]);
        assert!(!serde_json::to_string(&given.settings).unwrap().contains("hunter2"));
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
        let hook = r#"{"source": {"url": "/a"}, "outputs": {"webhook": {"url": "http://b/", "secret": ["hunter2"]}}}"#;
        let error = serde_json::from_str::<Given>(hook).unwrap_err().to_string();
        assert!(error.contains("outputs.webhook.secret") && !error.contains("hunter2"), "{error}");
    }
}
