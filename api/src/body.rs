//! What goes over the wire: the bodies of design.md as types, each with its OpenAPI schema.
//!
//! They are made from the domain's types and hold no behaviour. Fields come out in the order that they stand here.

mod detections;
mod device;
mod event;
mod given;
mod history;
mod json;
mod scenario;
mod settings;
mod source;
mod text;

pub(crate) use detections::{Results, StoredResult};
pub(crate) use device::Devices;
pub(crate) use event::{EventBody, Events};
pub(crate) use given::{Given, Secret};
pub(crate) use history::HistoryBody;
pub(crate) use json::{Body, Strict};
pub(crate) use scenario::{Scenario, Scenarios};
pub(crate) use settings::SettingsBody;
