//! YOLOv8 as it is published: the description of the network for every scale, its parameters by name, and the reference
//! that computes it with candle's operators.
//!
//! Nothing here knows files, colour spaces, thresholds or the network between machines. How it is computed fast is the
//! business of [`crate::fast`].

pub(crate) mod graph;
mod parameters;
mod reference;
pub(crate) mod shape;

pub use self::{
    graph::Graph,
    parameters::{ParameterError, Parameters, Source},
    reference::{Candidates, Reference},
    shape::Plan,
};
