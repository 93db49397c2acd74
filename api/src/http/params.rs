//! Names in addresses, queries and headers: parsed into the domain's types before a handler sees them.

use std::{borrow::Cow, str::FromStr};

use kadr_shared::{
    filter::Rate,
    id::{CommandId, ScenarioId},
    moment::{Moment, MomentError},
    settings::Ratio,
    time::Timestamp,
};
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromParameter, ParseResult, Type},
};

fn text(pattern: &str) -> MetaSchema {
    MetaSchema { pattern: Some(pattern.to_owned()), ..MetaSchema::new("string") }
}

fn number(least: f64, most: f64) -> MetaSchema {
    MetaSchema { minimum: Some(least), maximum: Some(most), ..MetaSchema::new("number") }
}

/// A type of the domain as a parameter: its name in the document, and what is said there of its form.
macro_rules! parameter {
    ($(#[$doc:meta])* $name:ident($inner:ty), $schema:literal, $form:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(super) struct $name(pub(super) $inner);

        impl Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> Cow<'static, str> {
                $schema.into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new($form))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl ParseFromParameter for $name {
            fn parse_from_parameter(value: &str) -> ParseResult<Self> {
                // The domain's message quotes a character at most.
                value.parse().map(Self).map_err(ParseError::custom)
            }
        }
    };
}

parameter!(
    /// A scenario's id.
    IdParam(ScenarioId),
    "string_scenario_id",
    text("^[a-z0-9][a-z0-9_-]{0,62}$")
);

parameter!(
    /// A command's key.
    KeyParam(CommandId),
    "string_command_key",
    text("^[A-Za-z0-9_-]{1,128}$")
);

parameter!(
    /// A place in the past.
    AtParam(At),
    "string_moment",
    text("^([0-9]+|[0-9]{4}-[0-9]{2}-[0-9]{2}T.+)$")
);

parameter!(
    /// The least confidence.
    ConfidenceParam(Ratio),
    "number_confidence",
    number(0.0, 1.0)
);

parameter!(
    /// Results a second.
    RateParam(Rate),
    "number_rate",
    number(0.01, 1000.0)
);

parameter!(
    /// When something was.
    TimeParam(Timestamp),
    "string_time",
    text("^[0-9]{4}-[0-9]{2}-[0-9]{2}T.+$")
);

/// A moment as it comes in an address, where a `+` that is not written as `%2B` arrives as a space.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) Moment);

impl FromStr for At {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        match text.rsplit_once(' ') {
            // The offset's own place: nothing else of a time can stand there.
            Some((time, offset)) if time.contains('T') && offset.len() == 5 => format!("{time}+{offset}").parse(),
            _ => text.parse(),
        }
        .map(Self)
    }
}

/// How many things a page holds, unless it is told otherwise.
pub(super) const fn default_limit() -> u32 {
    100
}

/// For how many seconds devices are waited for, unless it is told otherwise.
pub(super) const fn default_wait() -> u32 {
    2
}

/// Where a log begins, unless it is told otherwise.
pub(super) const fn from_the_first() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_that_became_a_space_is_understood() {
        let at = |text: &str| text.parse::<At>().map(|At(moment)| moment);
        let noon = at("2026-01-31T12:00:00Z").unwrap();
        for text in ["2026-01-31T13:00:00 01:00", "2026-01-31T13:00:00.000+01:00", "2026-01-31T11:00:00-01:00"] {
            assert_eq!(at(text), Ok(noon), "{text}");
        }
        for bad in ["1 01:00", "2026-01-31 12:00", "x T 01:00", " "] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
