//! Files of weights: found in folders, checked by size and digest, fetched from where they are published, read into
//! the network's [`Parameters`](crate::model::Parameters); other people's files made such files by [`import`].
//!
//! Which files are accepted is the catalogue's word. The network itself is not known here, nor are its layers' shapes.

mod fetch;
pub mod import;
mod naming;
mod read;
mod store;

pub(crate) use self::read::hex;
pub use self::{
    fetch::{FetchError, Patience, fetch},
    read::{ReadError, parameters},
    store::{Store, VerifiedWeights, WeightsError},
};
