//! What is known to be wrong with a camera, told by whoever knows it: kadr then does without.
//!
//! Only what can't be found out by itself stands here; what most cameras do wrong is borne without being told.

use std::{collections::BTreeSet, str::FromStr};

use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value},
};

/// What is wrong with one camera.
pub type Quirks = BTreeSet<Quirk>;

/// Something that a camera does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quirk {
    /// The times of its packets are of no use: a frame is shown when it came.
    WrongTimes,
    /// The time of day that it reports is wrong: a frame was taken when it came.
    WrongClock,
    /// What it says of the number of its first packet is wrong: the first one that comes counts.
    WrongSequence,
    /// Its reports carry the number of another sender than its packets do.
    ForeignReports,
    /// It goes on sending, or keeps the viewer's place, when the connection is closed: it is told until it has heard it.
    StaleSessions,
    /// It does not bear being told that a session ends: the connection is closed, and that is all.
    NoTeardown,
}

impl FromStr for Quirk {
    type Err = value::Error;

    fn from_str(text: &str) -> Result<Self, value::Error> {
        Self::deserialize(text.replace('-', "_").into_deserializer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quirks_go_by_their_names() {
        assert_eq!("wrong_clock".parse(), Ok(Quirk::WrongClock));
        assert_eq!("stale-sessions".parse(), Ok(Quirk::StaleSessions), "as on a command line");
        let error = "slow".parse::<Quirk>().unwrap_err().to_string();
        assert!(error.contains("slow") && error.contains("wrong_times"), "{error}");
    }
}
