//! What is made of results as text: files, and requests to somebody else's address.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use url::Url;

use super::Ratio;
use crate::{
    filter::{Filter, Rate},
    secret::SecretName,
};

/// How results are written into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// A line a frame, as it is stored.
    Jsonl,
    /// A line a detection.
    Csv,
}

impl TextFormat {
    /// How such a file's name ends.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

pub(super) fn without_repeats<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TextFormat>, D::Error> {
    let files = Vec::<TextFormat>::deserialize(deserializer)?;
    for (at, format) in files.iter().enumerate() {
        if files.iter().skip(at + 1).any(|other| other == format) {
            return Err(D::Error::custom(format!("outputs.files names {} twice", format.extension())));
        }
    }
    Ok(files)
}

/// Somebody's address that results are posted to, each at least once and in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    pub url: WebhookUrl,
    /// Labels to keep; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Ratio>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Under which name the text is kept that requests are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
}

impl Webhook {
    pub fn filter(&self) -> Filter {
        Filter { classes: self.classes.clone(), confidence: self.confidence, rate: self.rate }
    }
}

/// An `http://` or `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// Not an address to post to. It is never repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    #[error("outputs.webhook.url is no address: write it as https://host/path")]
    Address,
    #[error("outputs.webhook.url is longer than 2,000 characters")]
    Long,
    #[error(
        "outputs.webhook.url holds a user name or a password, and settings are shown: the receiver can know kadr by its \
         signature (outputs.webhook.secret)"
    )]
    Credentials,
}

impl WebhookUrl {
    pub const fn get(&self) -> &Url {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, WebhookUrlError> {
        if text.len() > 2_000 {
            return Err(WebhookUrlError::Long);
        }
        let url = Url::parse(text).map_err(|_| WebhookUrlError::Address)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(WebhookUrlError::Address);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(WebhookUrlError::Credentials);
        }
        Ok(Self(url))
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Outputs;

    fn parse(json: &str) -> Result<Outputs, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_given_is_left_out() {
        assert_eq!(serde_json::to_string(&Outputs::default()).unwrap(), r#"{"video":true}"#);
        let full = concat!(
            r#"{"video":false,"files":["jsonl","csv"],"webhook":{"url":"https://me.example/hook","classes":["car"],"#,
            r#""confidence":0.5,"rate":2.0,"secret":"0123456789abcdef"}}"#
        );
        assert_eq!(serde_json::to_string(&parse(full).unwrap()).unwrap(), full);
        let least = r#"{"video":true,"webhook":{"url":"http://127.0.0.1:9000/"}}"#;
        assert_eq!(serde_json::to_string(&parse(least).unwrap()).unwrap(), least);
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_repeating_it() {
        for (json, words) in [
            (r#"{"files": ["csv", "csv"]}"#, "twice"),
            (r#"{"files": ["xml"]}"#, "unknown variant"),
            (r#"{"webhook": {}}"#, "url"),
            (r#"{"webhook": {"url": "https://me:hunter2@host/"}}"#, "user name"),
            (r#"{"webhook": {"url": "https://hunter2@host/"}}"#, "user name"),
            (r#"{"webhook": {"url": "ftp://host/hunter2"}}"#, "https://host/path"),
            (r#"{"webhook": {"url": "hunter2"}}"#, "https://host/path"),
            (r#"{"webhook": {"url": "http://host/", "rate": 0}}"#, "0.01"),
            (r#"{"webhook": {"url": "http://host/", "confidence": 7}}"#, "between"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{json}: {error}");
        }
    }
}
