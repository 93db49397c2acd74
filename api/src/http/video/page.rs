//! The page that plays a scenario's video: all that a browser needs, in one answer.

use kadr_shared::id::ScenarioId;

/// An id holds nothing that HTML would take for its own.
pub(super) fn of(id: &ScenarioId) -> String {
    PAGE.replace("{id}", id.as_str())
}

const PAGE: &str = include_str!("page.html");
