//! Connecting to NATS, and finding out at once whether the server is one that kadr can trust.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, connection::State, jetstream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Older servers ignore headers that kadr relies on without a word (an expected sequence over a wildcard, TTLs).
pub const OLDEST_SERVER: (u64, u64) = (2, 14);

/// A first connection, and each request, must be answered in this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Acknowledgements that may be outstanding on a connection.
const MAX_ACKS_INFLIGHT: usize = 1024;
/// Messages that the client buffers while it is disconnected. Small: whoever publishes is to feel an outage.
const CLIENT_CAPACITY: usize = 256;
/// A connection whose other end does not answer is given up after three of these: a node that is frozen says nothing.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries to reconnect, ever longer.
const RECONNECT_FIRST: Duration = Duration::from_millis(10);
const RECONNECT_MOST: Duration = Duration::from_millis(500);

/// A connection with its JetStream context.
#[derive(Debug, Clone)]
pub struct Nats {
    pub client: Client,
    pub jetstream: jetstream::Context,
    connections: watch::Receiver<u64>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("no NATS server answers at {address}: start one, or give the right address by --nats")]
    Connect { address: String, source: async_nats::ConnectError },
    #[error("{address} is no usable NATS address: write it as nats://host:4222, several separated by commas")]
    Address { address: String },
    #[error("the NATS server at {address} is {found}; kadr needs {}.{} or newer: older ones ignore its ordering checks", OLDEST_SERVER.0, OLDEST_SERVER.1)]
    TooOld { address: String, found: String },
    #[error("the NATS server at {address} has JetStream off: start it with -js or with kadr's nats/single.conf")]
    NoJetStream { address: String },
}

impl Nats {
    /// Connects and checks the server. `address` may be several, separated by commas (the nodes of a cluster); `name` is
    /// shown in the server's connection list.
    ///
    /// Later outages are survived: the client reconnects by itself, for ever.
    pub async fn connect(address: &str, name: &str) -> Result<Self, NatsError> {
        let shown = redacted(address);
        let servers: Vec<ServerAddr> = address
            .split(',')
            .map(|one| if one.is_empty() || one.contains(char::is_whitespace) { None } else { one.parse().ok() })
            .collect::<Option<_>>()
            .ok_or_else(|| NatsError::Address { address: shown.clone() })?;
        let label = name.to_owned();
        let (counter, connections) = watch::channel(0);
        let options = ConnectOptions::new()
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .client_capacity(CLIENT_CAPACITY)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                let name = label.clone();
                if matches!(event, Event::Connected) {
                    counter.send_modify(|count| *count += 1);
                }
                async move {
                    match event {
                        Event::Connected => debug!(%name, "connected to NATS"),
                        Event::Disconnected => warn!(%name, "connection to NATS lost, reconnecting"),
                        Event::SlowConsumer(subscription) => {
                            warn!(%name, subscription, "too slow for a subscription: messages were dropped");
                        }
                        other => info!(%name, event = %other, "NATS"),
                    }
                }
            });
        let client =
            options.connect(servers).await.map_err(|source| NatsError::Connect { address: shown.clone(), source })?;
        let server = client.server_info();
        if !new_enough(&server.version) {
            return Err(NatsError::TooOld { address: shown, found: server.version });
        }
        if !server.jetstream {
            return Err(NatsError::NoJetStream { address: shown });
        }
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .max_ack_inflight(MAX_ACKS_INFLIGHT)
            .build(client.clone());
        Ok(Self { client, jetstream, connections })
    }

    /// Three on a cluster, one on a single server.
    pub fn replicas(&self) -> usize {
        if self.client.server_info().cluster.is_some() { 3 } else { 1 }
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Changes with every new connection. What was asked over the one before may never be answered, and memory streams and
    /// consumers may be gone with its server: whoever waits for either is to ask again.
    pub fn connections(&self) -> watch::Receiver<u64> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        connections
    }

    /// Sends what is buffered. To be called at the end of a service.
    pub async fn flush(&self) {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "could not flush the NATS connection"),
            Err(_) => warn!("could not flush the NATS connection in time"),
        }
    }
}

fn reconnect_delay(tries: usize) -> Duration {
    match u32::try_from(tries) {
        Ok(0 | 1) => Duration::ZERO,
        Ok(tries @ 2..=16) => RECONNECT_FIRST.saturating_mul(1 << (tries - 2)).min(RECONNECT_MOST),
        _ => RECONNECT_MOST,
    }
}

/// Whether a version such as `2.15.1` or `v2.15.0-RC.1` is at least [`OLDEST_SERVER`].
pub fn new_enough(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(|p| p.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST_SERVER,
        _ => false,
    }
}

/// An address without its credentials.
pub fn redacted(address: &str) -> String {
    address
        .split(',')
        .map(|one| match one.rsplit_once('@') {
            Some((before, host)) => match before.split_once("://") {
                Some((scheme, _)) => format!("{scheme}://***@{host}"),
                None => format!("***@{host}"),
            },
            None => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_told_from_new_ones() {
        for good in ["2.14.0", "2.15.1", "v2.14.2", "3.0.0", "2.14.0-RC.1"] {
            assert!(new_enough(good), "{good}");
        }
        for bad in ["2.9.10", "2.13.9", "1.99.0", "", "x"] {
            assert!(!new_enough(bad), "{bad}");
        }
    }

    #[test]
    fn reconnecting_is_tried_often() {
        assert_eq!(reconnect_delay(0), Duration::ZERO);
        assert_eq!(reconnect_delay(3), 2 * RECONNECT_FIRST);
        assert_eq!(reconnect_delay(16), RECONNECT_MOST);
        assert_eq!(reconnect_delay(usize::MAX), RECONNECT_MOST);
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(redacted("nats://me:secret@a:1,nats://b:2"), "nats://***@a:1,nats://b:2");
        assert_eq!(redacted("token@a"), "***@a");
    }
}
