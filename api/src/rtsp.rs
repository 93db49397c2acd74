//! Live video by RTSP (RFC 2326), for players that know nothing else: `rtsp://host:port/{id}`.
//!
//! A small server: packets go within the connection, other ways are refused, whereupon players ask for this one. There is no
//! password and no TLS; what may reach its port sees the video. Where the pictures come from is not known here but by
//! [`Hub`].
//!
//! | module | |
//! |---|---|
//! | `framer` | bytes into messages, within bounds |
//! | `session` | what a request means in a connection's state |
//! | `transport`, `sdp`, `answer` | what is said |
//! | `rtp`, `clock`, `rtcp` | pictures, their times, and reports as packets |
//! | `connection` | one player: deadlines, and all of the above |

mod answer;
mod clock;
mod connection;
mod framer;
mod rtcp;
mod rtp;
mod sdp;
mod session;
#[cfg(test)]
mod testing;
mod transport;

use std::time::Duration;

use kadr_shared::telemetry::chain;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::connection::{Connection, turn_away};
use crate::{live::Live, read_model::ReadModel, video::Hub};

/// Players at a time. Each costs a descriptor and one picture's bytes.
const MOST_PLAYERS: usize = 256;
/// So many more are told that there is no room; whoever comes then is not answered.
const MOST_TURNED_AWAY: usize = 64;
/// Where no connection can be taken (descriptors have run out), it is tried again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections need.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) hub: Hub,
    pub(crate) model: ReadModel,
    pub(crate) live: Live,
}

/// Serves players until the stop, and then until each has been told.
pub(crate) async fn serve(listener: TcpListener, desk: Desk, stop: CancellationToken) {
    let mut players = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = players.join_next(), if !players.is_empty() => {
                if let Err(error) = ended {
                    warn!(%error, "a connection of RTSP broke");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if players.len() < MOST_PLAYERS => {
                let (desk, stop) = (desk.clone(), stop.clone());
                players.spawn(async move {
                    debug!(%peer, "a player connects");
                    match show(stream, desk, &stop).await {
                        Ok(()) => debug!(%peer, "a player has left"),
                        Err(error) => debug!(%peer, error = %chain(&error), "a player is let go"),
                    }
                });
            }
            Ok((stream, _)) if players.len() < MOST_PLAYERS + MOST_TURNED_AWAY => {
                players.spawn(turn_away(stream, "too many watch already: ask another API, or later"));
            }
            // Closed at once.
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "a player can't connect");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while players.join_next().await.is_some() {}
}

async fn show(stream: TcpStream, desk: Desk, stop: &CancellationToken) -> Result<(), connection::Broken> {
    // Pictures are written whole: what waits for more is late.
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Connection::new(stream, local, desk).serve(stop).await
}

/// Reads bytes as a player's, to their end: for the fuzz target. How many messages there were.
#[doc(hidden)]
pub fn messages_in(bytes: &[u8]) -> usize {
    framer::messages_in(bytes)
}
