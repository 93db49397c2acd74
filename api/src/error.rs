//! Why the API can't start or had to end. What goes wrong in a single request is a [`problem`](crate::problem).

use std::net::SocketAddr;

use crate::{projection::ProjectionError, read_model::OpenError};

/// The end of the service.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("can't listen at {address}: the port is in use; stop what uses it, or give another address by {flag}")]
    AddressInUse { address: SocketAddr, flag: &'static str, source: std::io::Error },
    #[error("can't listen at {address}: give another address by {flag}")]
    Listen { address: SocketAddr, flag: &'static str, source: std::io::Error },
    #[error(transparent)]
    ReadModel(#[from] OpenError),
    #[error("the tables can't be rebuilt")]
    Rebuild(#[source] ProjectionError),
    #[error("the HTTP server ended")]
    Serve(#[source] std::io::Error),
    #[error("the API's {task} ended unexpectedly")]
    Task { task: &'static str, source: tokio::task::JoinError },
}
