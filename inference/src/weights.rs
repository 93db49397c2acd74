//! Files of weights: found in folders, checked by size and digest, fetched from where they are published, read into
//! the network's [`Parameters`](crate::model::Parameters).
//!
//! Which files are accepted is the catalogue's word. The network itself is not known here, nor are its layers' shapes.

mod fetch;
mod naming;
mod read;
mod store;

pub(crate) use self::read::hex;
pub use self::{
    fetch::{FetchError, Patience, fetch},
    read::{ReadError, parameters},
    store::{Store, VerifiedWeights, WeightsError},
};
