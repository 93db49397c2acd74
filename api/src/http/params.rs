//! Names in addresses, queries and headers: parsed into the domain's types before a handler sees them.

use std::borrow::Cow;

use kadr_shared::id::{CommandId, ScenarioId};
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromParameter, ParseResult, Type},
};

macro_rules! name_parameter {
    ($(#[$doc:meta])* $name:ident($inner:ty), $schema:literal, $pattern:literal) => {
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
                let schema = MetaSchema { pattern: Some($pattern.to_owned()), ..MetaSchema::new("string") };
                MetaSchemaRef::Inline(Box::new(schema))
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

name_parameter!(
    /// A scenario's id.
    IdParam(ScenarioId),
    "string_scenario_id",
    "^[a-z0-9][a-z0-9_-]{0,62}$"
);

name_parameter!(
    /// A command's key.
    KeyParam(CommandId),
    "string_command_key",
    "^[A-Za-z0-9_-]{1,128}$"
);

/// How many things a page holds, unless it is told otherwise.
pub(super) const fn default_limit() -> u32 {
    100
}
