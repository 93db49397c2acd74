//! Waiting until the tables have come to a sequence: so that a caller reads its own write.

use std::{future::pending, time::Duration};

use kadr_shared::{nats::Nats, subjects, time::Timestamp};
use tokio::{sync::watch, time::timeout};

use crate::{
    problem::{Problem, ProblemName},
    projection::{Following, Position},
    storage::{self, StreamHealth},
};

/// How long a reader waits for the tables.
pub(crate) const WAIT: Duration = Duration::from_secs(2);
/// A stream's new leader may not have everything applied in its first moments: its end is believed at the second look.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Waits until the tables have come to `wanted`. A sequence that the log does not have yet is refused at once.
pub(crate) async fn reach(nats: &Nats, position: &watch::Receiver<Position>, wanted: u64) -> Result<(), Problem> {
    let mut position = position.clone();
    let there = timeout(WAIT, position.wait_for(|p| p.seq >= wanted || matches!(p.following, Following::Halted(_))));
    let outcome = tokio::select! {
        biased;
        outcome = there => outcome.is_ok_and(|arrived| arrived.is_ok()),
        end = end_before(nats, wanted) => {
            let detail = format!("the log's last sequence is {end}: {wanted} has not happened yet");
            return Err(Problem::new(ProblemName::NotYet, detail));
        }
    };
    let at = position.borrow();
    if outcome && at.seq >= wanted { Ok(()) } else { Err(behind(&at, wanted)) }
}

/// Waits until the tables have all that happened up to a time, which has to be over.
pub(crate) async fn reach_time(
    nats: &Nats,
    position: &watch::Receiver<Position>,
    wanted: Timestamp,
) -> Result<(), Problem> {
    let StreamHealth::Ok { last, at } = storage::look(nats, subjects::EVENTS).await else {
        return Err(Problem::new(
            ProblemName::Unavailable,
            "NATS does not tell the end of the log, so it is not known whether all up to that time has been read: \
             try again, or give a sequence",
        ));
    };
    // This clock may be wrong; what the log has stamped is over in any case.
    let now = Timestamp::now().max(at);
    if wanted > now {
        let detail = format!("{wanted} lies in the future: it is {now}");
        return Err(Problem::new(ProblemName::NotYet, detail));
    }
    reach(nats, position, last).await
}

/// What is told to who waited in vain.
pub(crate) fn behind(at: &Position, wanted: u64) -> Problem {
    let why = match &at.following {
        Following::Starting => ": they are being opened; try again".to_owned(),
        Following::Yes => ": try again".to_owned(),
        Following::Interrupted(reason) => {
            format!(" and are interrupted ({reason}): they go on by themselves, try again")
        }
        Following::Halted(reason) => format!(" and have stopped: {reason}"),
    };
    let detail = format!("the tables are at sequence {}, not yet at {wanted}{why}", at.seq);
    Problem::new(ProblemName::Behind, detail)
}

/// Ends with the log's last sequence once it is sure that this is before `wanted`, and otherwise never.
async fn end_before(nats: &Nats, wanted: u64) -> u64 {
    let short = async || storage::look(nats, subjects::EVENTS).await.last().filter(|last| *last < wanted);
    if short().await.is_some() {
        tokio::time::sleep(SECOND_LOOK).await;
        if let Some(last) = short().await {
            return last;
        }
    }
    pending().await
}
