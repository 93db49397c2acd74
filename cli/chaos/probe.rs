//! Whether the streams take writes: a small one into each, three times a second, by connections of the harness's own. A
//! stream may have a leader that answers questions and can store nothing, as after a frozen node has woken up.
//!
//! What is written is valid and changes nothing: a key of the bucket that nobody reads, a command to a scenario that does
//! not exist, and the refusal of one.

use std::{sync::Arc, time::Duration};

use async_nats::Client;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{now, spans::Cause, watch::Watch};

const PERIOD: Duration = Duration::from_millis(300);
/// A write that takes longer is as good as none.
const STORED: Duration = Duration::from_millis(600);
/// Scenarios of this name are the probe's.
pub const SCENARIO: &str = "probe-";

/// Writes until it is dropped.
pub async fn run(watch: Arc<Watch>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut preferred) = (0_u64, 0);
    loop {
        ticks.tick().await;
        number += 1;
        let at = now();
        let good = all_take_it(&watch.clients, number, &mut preferred).await;
        watch.mark(Cause::Writes, !good, at, now());
    }
}

async fn all_take_it(clients: &[Client], number: u64, preferred: &mut usize) -> bool {
    let mut good = [false; 3];
    for attempt in 0..clients.len() {
        let node = (*preferred + attempt) % clients.len();
        let Some(client) = clients.get(node) else { continue };
        let answers =
            futures::future::join_all(writes(number, node).map(|(subject, body)| write(client, subject, body)));
        for (good, answer) in good.iter_mut().zip(answers.await) {
            *good |= answer;
        }
        if good.iter().all(|good| *good) {
            *preferred = node;
            return true;
        }
    }
    false
}

/// One for each stream.
fn writes(number: u64, node: usize) -> [(String, Value); 3] {
    let key = format!("probe-{number}-{node}");
    let command = json!({"id": key, "actor": "chaos", "command": {"command": "stop"}});
    let refusal = json!({
        "version": 1, "cause": {"input": null, "id": key}, "actor": "chaos",
        "data": {"command": "stop", "reason": "not_found"},
    });
    [
        ("$KV.KADR_NODES.chaos".to_owned(), json!(number)),
        (format!("kadr.in.{SCENARIO}inbox.cmd.{key}"), command),
        (format!("kadr.evt.{SCENARIO}log.command_refused"), refusal),
    ]
}

async fn write(client: &Client, subject: String, body: Value) -> bool {
    let Ok(Ok(answer)) = timeout(STORED, client.request(subject, body.to_string().into())).await else { return false };
    serde_json::from_slice::<Value>(&answer.payload).is_ok_and(|answer| answer.get("seq").is_some())
}
