//! What the tests share; one concept a file.

pub(crate) mod browser;
pub(crate) mod clips;
pub(crate) mod cluster;
pub(crate) mod home;
pub(crate) mod http;
pub(crate) mod lines;
pub(crate) mod process;
pub(crate) mod store;
pub(crate) mod up;
pub(crate) mod world;
