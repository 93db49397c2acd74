//! The past, folded from a scenario's events: its state as it was, and how it got from state to state.
//!
//! Pure but for [`read`], which hands the events over in pages, so that a long log takes no more memory than a short one.
//! Nothing here knows HTTP; the numbers of a moment that is over are not kept, so there are none.

use std::time::Duration;

use kadr_shared::{
    domain::{Cause, EndReason, Event, EventData, EventError, Phase, State},
    id::ScenarioId,
    moment::Moment,
    time::Timestamp,
};

use crate::read_model::{ReadError, ReadModel};

/// Events read at once.
const PAGE: u32 = 500;

/// The past can't be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PastError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Hands a scenario's events to `take`, in order, until it has enough (false) or there are no more.
pub(crate) async fn read(
    model: &ReadModel,
    id: &ScenarioId,
    mut take: impl FnMut(&Event) -> Result<bool, EventError> + Send,
) -> Result<(), PastError> {
    let mut from = 1;
    loop {
        let page = model.events(id, from, PAGE).await?;
        for event in &page {
            if !take(event)? {
                return Ok(());
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => from = last.seq + 1,
            _ => return Ok(()),
        }
    }
}

/// The state as it was at a moment.
#[derive(Debug)]
pub(crate) struct AsOf {
    at: Moment,
    folded: Folded,
    /// What held before the first event behind a time: it counts unless a later event has an earlier stamp.
    kept: Option<Folded>,
    any: bool,
}

#[derive(Debug, Clone, Default)]
struct Folded {
    state: State,
    deleted: Option<(u64, Timestamp)>,
}

/// What was at that moment.
#[derive(Debug, PartialEq)]
pub(crate) enum Past {
    Was(Box<State>),
    /// It had been deleted by this event.
    Deleted {
        seq: u64,
        time: Timestamp,
    },
    /// It was created later, or tried to be.
    NotYet,
    /// Nothing ever happened to it.
    Never,
}

impl AsOf {
    pub(crate) fn new(at: Moment) -> Self {
        Self { at, folded: Folded::default(), kept: None, any: false }
    }

    /// Takes the next event. False: no later one can matter.
    pub(crate) fn take(&mut self, event: &Event) -> Result<bool, EventError> {
        self.any = true;
        if self.at.is_before(event.seq, event.time) {
            match self.at {
                Moment::Seq(_) => return Ok(false),
                // Stamps may go back where another node began to lead. The last sequence at or before the time counts.
                Moment::Time(_) => {
                    self.kept.get_or_insert_with(|| self.folded.clone());
                }
            }
        } else {
            self.kept = None;
        }
        let data = event.parse()?;
        let state = std::mem::take(&mut self.folded.state);
        self.folded.state = state.evolve(event.seq, event.time, &event.cause, &data);
        if matches!(data, EventData::ScenarioDeleted {}) {
            self.folded.deleted = Some((event.seq, event.time));
        }
        Ok(true)
    }

    pub(crate) fn end(self) -> Past {
        let Folded { state, deleted } = self.kept.unwrap_or(self.folded);
        match deleted {
            _ if state.exists() => Past::Was(Box::new(state)),
            Some((seq, time)) => Past::Deleted { seq, time },
            None if self.any => Past::NotYet,
            None => Past::Never,
        }
    }
}

/// A change of the state's name. None stands for a scenario that does not exist.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Transition {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) from: Option<Phase>,
    pub(crate) to: Option<Phase>,
    /// How long it was in the state that ended, by the server's stamps.
    pub(crate) lasted: Option<Duration>,
    pub(crate) kind: &'static str,
    pub(crate) cause: Cause,
    pub(crate) actor: String,
    /// How the run ended, if it did.
    pub(crate) reason: Option<EndReason>,
    pub(crate) error: Option<String>,
}

/// The state that the last event left.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Present {
    pub(crate) state: Option<Phase>,
    pub(crate) since: Timestamp,
    pub(crate) seq: u64,
}

/// A page of transitions.
#[derive(Debug)]
pub(crate) struct History {
    from: u64,
    limit: usize,
    state: State,
    present: Option<Present>,
    found: Vec<Transition>,
    next: Option<u64>,
    any: bool,
}

impl History {
    /// Those from sequence `from` on, `limit` at most.
    pub(crate) fn new(from: u64, limit: usize) -> Self {
        Self { from, limit, state: State::default(), present: None, found: Vec::new(), next: None, any: false }
    }

    /// Takes the next event. False: the page is full.
    pub(crate) fn take(&mut self, event: &Event) -> Result<bool, EventError> {
        self.any = true;
        let data = event.parse()?;
        let before = phase(&self.state);
        self.state = std::mem::take(&mut self.state).evolve(event.seq, event.time, &event.cause, &data);
        let after = phase(&self.state);
        if before.as_ref().map(Phase::name) == after.as_ref().map(Phase::name) {
            return Ok(true);
        }
        if event.seq >= self.from {
            if self.found.len() >= self.limit {
                self.next = Some(event.seq);
                return Ok(false);
            }
            let present = self.present.as_ref().filter(|_| before.is_some());
            let lasted = present.map(|present| event.time.since(present.since));
            let (reason, error) = why(&data);
            self.found.push(Transition {
                seq: event.seq,
                at: event.time,
                from: before,
                to: after.clone(),
                lasted,
                kind: data.kind(),
                cause: event.cause.clone(),
                actor: event.actor.clone(),
                reason,
                error,
            });
        }
        self.present = Some(Present { state: after, since: event.time, seq: event.seq });
        Ok(true)
    }

    /// The transitions, the sequence to go on from, and on the last page the state that holds. `None`: nothing has ever
    /// happened to it.
    pub(crate) fn end(self) -> Option<(Vec<Transition>, Option<u64>, Option<Present>)> {
        let present = if self.next.is_none() { self.present } else { None };
        self.any.then_some((self.found, self.next, present))
    }
}

fn phase(state: &State) -> Option<Phase> {
    state.exists().then(|| state.phase.clone())
}

/// What an event says of the reason.
fn why(data: &EventData) -> (Option<EndReason>, Option<String>) {
    match data {
        EventData::SourceEnded { error, .. } => (None, error.clone()),
        EventData::AttemptFailed { error, .. } | EventData::RunFailed { error, .. } => (None, Some(error.clone())),
        EventData::Deactivated { reason, error, .. } => (Some(*reason), error.clone()),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use kadr_shared::id::RunId;

    use super::*;

    const RUN: RunId = RunId::from_u128(1);

    /// Events with sequences 10, 20, … and these stamps.
    fn log(entries: Vec<(i64, EventData)>) -> Vec<Event> {
        let event = |(n, (millis, data)): (usize, (i64, EventData))| {
            let cause = Cause { input: Some(n as u64 + 1), id: format!("k{n}") };
            let body = data.body(cause, "api".into()).unwrap();
            Event {
                seq: 10 * (n as u64 + 1),
                time: Timestamp::from_millis(millis),
                scenario: "gate".parse().unwrap(),
                kind: data.kind().to_owned(),
                version: body.version,
                cause: body.cause,
                actor: body.actor,
                data: body.data,
            }
        };
        entries.into_iter().enumerate().map(event).collect()
    }

    fn settings(url: &str) -> kadr_shared::settings::Settings {
        serde_json::from_value(serde_json::json!({"source": {"url": url}})).unwrap()
    }

    fn life() -> Vec<Event> {
        let started = EventData::StartRequested { run: RUN, attempt: 1, settings: Box::new(settings("/a")) };
        log(vec![
            (1000, EventData::ScenarioCreated { settings: settings("/a"), generation: 1 }),
            (2000, EventData::ScenarioReconfigured { settings: settings("/b") }),
            (3000, started),
            (4000, EventData::RunFailed { run: RUN, error: "no such file".into() }),
            (4500, EventData::ShutdownAcknowledged { run: RUN, gone: true }),
            (
                5000,
                EventData::Deactivated {
                    run: RUN,
                    reason: EndReason::Failed,
                    frames: None,
                    error: Some("no such file".into()),
                },
            ),
            (6000, EventData::ScenarioDeleted {}),
        ])
    }

    fn as_of(events: &[Event], at: &str) -> Past {
        let mut past = AsOf::new(at.parse().unwrap());
        for event in events {
            if !past.take(event).unwrap() {
                break;
            }
        }
        past.end()
    }

    fn state(past: Past) -> State {
        let Past::Was(state) = past else { panic!("{past:?}") };
        *state
    }

    fn time(millis: i64) -> String {
        Timestamp::from_millis(millis).to_string()
    }

    #[test]
    fn the_state_is_that_of_the_last_event_up_to_the_moment() {
        let events = life();
        for at in ["20", "29", &time(2000), &time(2999)] {
            let state = state(as_of(&events, at));
            assert_eq!((state.seq, state.settings.unwrap()), (20, settings("/b")), "{at}");
        }
        assert_eq!(state(as_of(&events, "30")).phase.name(), "init_startup");
        assert_eq!(state(as_of(&events, &time(1000))).settings.unwrap(), settings("/a"));
        for at in ["9", "0", &time(999)] {
            assert_eq!(as_of(&events, at), Past::NotYet, "{at}");
        }
        for at in ["70", "1000", &time(6000), &time(60_000)] {
            assert_eq!(as_of(&events, at), Past::Deleted { seq: 70, time: Timestamp::from_millis(6000) }, "{at}");
        }
        assert_eq!(as_of(&[], "5"), Past::Never);
    }

    #[test]
    fn a_clock_that_went_back_does_not_hide_an_event() {
        let reconfigured = |url| EventData::ScenarioReconfigured { settings: settings(url) };
        let events = log(vec![
            (1000, EventData::ScenarioCreated { settings: settings("/a"), generation: 1 }),
            (5000, reconfigured("/b")),
            (3000, reconfigured("/c")),
            (6000, reconfigured("/d")),
        ]);
        // The third event is stamped at or before 4000, and with it all before it have happened.
        assert_eq!(state(as_of(&events, &time(4000))).settings.unwrap(), settings("/c"));
        assert_eq!(state(as_of(&events, &time(2000))).settings.unwrap(), settings("/a"));
        assert_eq!(state(as_of(&events, &time(5500))).settings.unwrap(), settings("/c"));
    }

    fn history(events: &[Event], from: u64, limit: usize) -> (Vec<Transition>, Option<u64>, Option<Present>) {
        let mut history = History::new(from, limit);
        for event in events {
            if !history.take(event).unwrap() {
                break;
            }
        }
        history.end().unwrap()
    }

    #[test]
    fn only_changes_of_the_name_are_transitions_and_each_says_how_long_the_last_state_was() {
        let (all, next, present) = history(&life(), 1, 100);
        let name = |phase: &Option<Phase>| phase.as_ref().map(Phase::name);
        let short: Vec<_> = all
            .iter()
            .map(|t| (t.seq, name(&t.from), name(&t.to), t.lasted.map(|d| d.as_millis()), t.error.as_deref()))
            .collect();
        let error = Some("no such file");
        assert_eq!(
            short,
            [
                (10, None, Some("inactive"), None, None),
                (30, Some("inactive"), Some("init_startup"), Some(2000), None),
                (40, Some("init_startup"), Some("init_shutdown"), Some(1000), error),
                (50, Some("init_shutdown"), Some("in_shutdown_processing"), Some(500), None),
                (60, Some("in_shutdown_processing"), Some("inactive"), Some(500), error),
                (70, Some("inactive"), None, Some(1000), None),
            ]
        );
        assert_eq!((all[4].reason, all[4].kind), (Some(EndReason::Failed), "deactivated"));
        assert_eq!((all[1].cause.input, all[1].cause.id.as_str()), (Some(3), "k2"));
        assert_eq!(next, None);
        assert_eq!(present, Some(Present { state: None, since: Timestamp::from_millis(6000), seq: 70 }));
        assert!(History::new(1, 1).end().is_none(), "nothing ever happened");
    }

    #[test]
    fn pages_join_without_gap_or_repeat() {
        let (all, ..) = history(&life(), 1, 100);
        let (mut joined, mut from) = (Vec::new(), 1);
        loop {
            let (page, next, present) = history(&life(), from, 2);
            joined.extend(page);
            assert_eq!(present.is_some(), next.is_none(), "what holds now is told on the last page");
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(joined, all);
    }
}
