//! `kadr events replay --to-subject`: a scenario's recorded detections once more, as they came.
//!
//! They are published on core NATS, so nothing is stored, and on a subject that is none of kadr's, so nothing that kadr
//! knows is changed. Each carries where it was from. It ends with what was stored when it began.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Result, bail};
use async_nats::HeaderMap;
use kadr_shared::{
    detections,
    nats::Nats,
    subjects,
    tail::{Entry, Tail},
    time::Timestamp,
};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{args::ReplayArgs, print, signals};

/// The headers of each message: its sequence in `KADR_DETECTIONS`, and when it was stored.
const SEQUENCE: &str = "Kadr-Original-Sequence";
const TIME: &str = "Kadr-Original-Time";

/// Silence after which it is looked whether what is awaited still exists.
const SILENCE: Duration = Duration::from_secs(10);
/// NATS has to take a message in this time.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(30);
/// After a pause longer than this the reader is begun anew: the server has given it up.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// A subject to publish on that is none of kadr's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainSubject(String);

impl FromStr for PlainSubject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 255 || text.split('.').any(str::is_empty) {
            return Err("a subject has 1 to 255 characters in parts separated by dots, such as replay.gate".to_owned());
        }
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control() || ['*', '>'].contains(c)) {
            return Err(format!("{bad:?} can't stand in a subject to publish on: write one such as replay.gate"));
        }
        if text.starts_with('$') || text.split('.').next() == Some("kadr") {
            return Err(
                "subjects of kadr and of NATS itself (kadr.…, $…) are not for this: what is published there is \
                        taken for new; choose another such as replay.gate"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PlainSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much faster than it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    Factor(f64),
    Max,
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(factor) if (0.001..=1_000_000.0).contains(&factor) => Ok(Self::Factor(factor)),
            _ => Err("a factor from 0.001 to 1000000, or max, is wanted"),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Factor(factor) => factor.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

/// When each message is due.
#[derive(Debug)]
struct Schedule {
    speed: Speed,
    begun: Option<(Instant, Timestamp)>,
}

impl Schedule {
    /// By the first message's stamp and not by the last gap: nothing adds up. None: at once.
    fn due(&mut self, now: Instant, stamp: Timestamp) -> Option<Instant> {
        let Speed::Factor(factor) = self.speed else { return None };
        let (begun, first) = *self.begun.get_or_insert((now, stamp));
        // A gap too long for the clock is as good as for ever.
        let wait = Duration::try_from_secs_f64(stamp.since(first).as_secs_f64() / factor).ok()?;
        begun.checked_add(wait)
    }
}

/// What was played.
#[derive(Debug, Default)]
struct Played {
    count: u64,
    first: Option<u64>,
    last: Option<u64>,
}

pub async fn run(args: &ReplayArgs, subject: &PlainSubject, nats: &str) -> Result<()> {
    let stop = signals::first_signal()?;
    let nats = Nats::connect(nats, "kadr-replay").await?;
    let scenario = &args.scenario;
    let Some(end) = detections::last(&nats, scenario).await? else {
        bail!("no detections of {scenario} are stored: it has not run, or they were deleted with it or by their age");
    };
    let first = detections::first(&nats, scenario, args.from).await?.filter(|first| *first <= end);
    let Some(first) = first else {
        bail!("no detections of {scenario} are stored from {} on: the last one has sequence {end}", args.from);
    };
    let mut played = Played::default();
    let ended = play(args, subject, &nats, first, end, &stop, &mut played).await;
    nats.flush().await;
    let interrupted = stop.is_cancelled();
    if args.client.json {
        print::json(&json!({
            "scenario": scenario, "subject": subject.to_string(), "played": played.count,
            "first": played.first, "last": played.last, "interrupted": interrupted,
        }))?;
    } else {
        let range = played.first.zip(played.last).map(|(first, last)| format!(" (sequences {first} to {last})"));
        let interrupted = if interrupted { ", then interrupted" } else { "" };
        println!(
            "played {} detections of {scenario} on {subject}{}{interrupted}",
            played.count,
            range.unwrap_or_default()
        );
    }
    ended
}

async fn play(
    args: &ReplayArgs,
    subject: &PlainSubject,
    nats: &Nats,
    first: u64,
    end: u64,
    stop: &CancellationToken,
    played: &mut Played,
) -> Result<()> {
    let reader = |from| {
        let filter = subjects::detections(&args.scenario);
        Tail::new(nats.jetstream.clone(), subjects::DETECTIONS, filter, from)
    };
    let mut tail = reader(first);
    let mut schedule = Schedule { speed: args.speed, begun: None };
    loop {
        let entry = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            entry = next(nats, args, &mut tail, played.last.unwrap_or(0)) => entry?,
        };
        let Some(entry) = entry.filter(|e| e.seq <= end && !args.to.is_some_and(|to| to.is_before(e.seq, e.time)))
        else {
            return Ok(());
        };
        let now = Instant::now();
        if let Some(due) = schedule.due(now, entry.time) {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(due) => {}
            }
            if due.saturating_duration_since(now) > LONG_PAUSE {
                tail = reader(entry.seq + 1);
            }
        }
        let seq = entry.seq;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            sent = timeout(PUBLISH_DEADLINE, publish(nats, subject, entry)) => {
                sent.context("NATS takes no messages any more: see that it runs")??;
            }
        }
        played.count += 1;
        played.first.get_or_insert(seq);
        played.last = Some(seq);
        if seq >= end {
            return Ok(());
        }
    }
}

/// The next one; none: what was to come has been deleted meanwhile.
async fn next(nats: &Nats, args: &ReplayArgs, tail: &mut Tail, last: u64) -> Result<Option<Entry>> {
    loop {
        if let Ok(entry) = timeout(SILENCE, tail.next()).await {
            return Ok(Some(entry));
        }
        // While NATS is away the reader waits for it, until somebody has enough.
        if let Ok(stored) = detections::last(nats, &args.scenario).await
            && stored.is_none_or(|stored| stored <= last)
        {
            return Ok(None);
        }
    }
}

async fn publish(nats: &Nats, subject: &PlainSubject, entry: Entry) -> Result<()> {
    let mut headers = HeaderMap::new();
    headers.insert(SEQUENCE, entry.seq.to_string());
    headers.insert(TIME, entry.time.to_string());
    let payload = entry.message.payload.clone();
    nats.client.publish_with_headers(subject.to_string(), headers, payload).await.context("can't publish")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_kadr_and_of_nats_are_refused() {
        for good in ["replay", "replay.gate", "a-b_c.D", "kadrs.x"] {
            assert!(good.parse::<PlainSubject>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in
            ["", "kadr", "kadr.det.gate", "$KV.x", "$JS.API.INFO", "a.*", "a.>", "a b", "a..b", ".a", "a.", &long]
        {
            let error = bad.parse::<PlainSubject>().unwrap_err();
            assert!(error.contains("replay.gate") && error.len() < 250, "{error}");
        }
    }

    #[test]
    fn a_speed_is_a_factor_or_max() {
        assert_eq!("1".parse(), Ok(Speed::Factor(1.0)));
        assert_eq!("0.5".parse(), Ok(Speed::Factor(0.5)));
        assert_eq!("max".parse(), Ok(Speed::Max));
        for bad in ["0", "-1", "NaN", "inf", "fast", "", "1e9"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_are_due_by_their_original_gaps_divided_by_the_speed() {
        let (now, at) = (Instant::now(), Timestamp::from_millis);
        let mut as_it_was = Schedule { speed: Speed::Factor(1.0), begun: None };
        let mut faster = Schedule { speed: Speed::Factor(4.0), begun: None };
        // The fourth was stamped by a clock that went back: it comes at once, and shifts nothing.
        for (stamp, gap) in [(5000, 0), (5040, 40), (65_000, 60_000), (4000, 0), (66_000, 61_000)] {
            let gap = Duration::from_millis(gap);
            assert_eq!(as_it_was.due(now, at(stamp)), Some(now + gap), "{stamp}");
            assert_eq!(faster.due(now, at(stamp)), Some(now + gap / 4), "{stamp}");
        }
        let mut at_once = Schedule { speed: Speed::Max, begun: None };
        assert_eq!(at_once.due(now, at(5000)), None);
        assert_eq!(at_once.due(now, at(65_000)), None);
    }
}
