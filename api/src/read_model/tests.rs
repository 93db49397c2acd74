//! What holds of the tables in either database: each case runs on both.

use kadr_shared::{
    domain::{Cause, CommandKind, Event, EventData, Phase, Refusal},
    id::RunId,
    testkit::TestPostgres,
    time::Timestamp,
};
use tempfile::TempDir;

use super::*;
use crate::read_model::write::Claim;

/// A place for tables, and what it stands on.
struct Store {
    place: Place,
    _ground: Ground,
}

#[expect(dead_code, reason = "held to be dropped at the end")]
enum Ground {
    Folder(TempDir),
    Server(Box<TestPostgres>),
}

impl Store {
    fn sqlite() -> Self {
        let folder = TempDir::with_prefix("kadr-tables-").unwrap();
        Self { place: Place::in_folder(folder.path()), _ground: Ground::Folder(folder) }
    }

    async fn postgres() -> Self {
        let server = TestPostgres::start().await;
        Self { place: server.url("postgres").parse().unwrap(), _ground: Ground::Server(Box::new(server)) }
    }

    async fn open(&self) -> ReadModel {
        let model = ReadModel::open(&self.place, Use::Shared).await.unwrap();
        model.prepare().await.unwrap();
        model
    }

    /// The tables, begun for the log "1".
    async fn begun(&self) -> (ReadModel, Writer) {
        let model = self.open().await;
        let mut writer = Writer::new(model.clone());
        writer.claim("1", false).await.unwrap();
        (model, writer)
    }
}

macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $case() { super::$case(super::Store::sqlite()).await; })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $case() { super::$case(super::Store::postgres().await).await; })*
        }
    };
}

on_both![
    events_become_states_lines_and_outcomes,
    a_batch_twice_is_a_batch_once,
    a_batch_behind_a_hole_is_refused,
    a_batch_of_another_log_is_refused,
    nothing_of_a_batch_that_fails_is_seen,
    pages_follow_one_another,
    a_large_batch_is_taken_in_whole,
    a_key_that_is_used_again_has_the_later_outcome,
    another_log_and_another_version_begin_anew,
    tables_ahead_of_their_log_begin_anew,
    writers_at_once_write_each_event_once,
    what_was_written_is_there_when_opened_again,
];

fn projected(seq: u64, scenario: &str, cause: Cause, data: EventData) -> Projected {
    let body = data.body(cause, "test".into()).unwrap();
    let event = Event {
        seq,
        time: Timestamp::from_millis(1000 + seq as i64),
        scenario: scenario.parse().unwrap(),
        kind: data.kind().to_owned(),
        version: body.version,
        cause: body.cause,
        actor: body.actor,
        data: body.data,
    };
    let line = serde_json::to_string(&event).unwrap();
    Projected { event, data, line }
}

fn cause(input: u64) -> Cause {
    Cause { input: Some(input), id: format!("key-{input}") }
}

fn created(seq: u64, scenario: &str) -> Projected {
    let settings = serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap();
    projected(seq, scenario, cause(seq), EventData::ScenarioCreated { settings, generation: 1 })
}

fn refused(seq: u64, scenario: &str, cause: Cause) -> Projected {
    let data = EventData::CommandRefused { command: CommandKind::Stop, reason: Refusal::NotRunning };
    projected(seq, scenario, cause, data)
}

fn batch(after: u64, events: Vec<Projected>) -> Batch {
    Batch { after, last: events.last().map_or(after, |p| p.event.seq), events }
}

async fn seqs(model: &ReadModel, scenario: &str) -> Vec<u64> {
    let events = model.events(&scenario.parse().unwrap(), 1, 10_000).await.unwrap();
    events.iter().map(|event| event.seq).collect()
}

async fn ids(model: &ReadModel) -> Vec<String> {
    let found = model.scenarios(None, 10_000).await.unwrap().found;
    found.into_iter().map(|(id, _)| id.to_string()).collect()
}

async fn events_become_states_lines_and_outcomes(store: Store) {
    let (model, mut writer) = store.begun().await;
    let gate = "gate".parse().unwrap();
    assert_eq!(model.scenario(&gate).await.unwrap(), read::Snapshot { seq: 0, found: None });
    let run = RunId::from_u128(1);
    let events = vec![
        created(1, "gate"),
        projected(2, "gate", cause(2), EventData::StopRequested { run }),
        refused(3, "gate", cause(3)),
        created(4, "yard"),
        projected(5, "yard", cause(5), EventData::ScenarioDeleted {}),
    ];
    // Sequence 6 was no event.
    let all = Batch { after: 0, last: 6, events: events.clone() };
    assert_eq!(writer.apply("1", &all).await.unwrap(), 6);

    let seen = model.scenario(&gate).await.unwrap();
    let state = seen.found.unwrap();
    assert_eq!((seen.seq, state.seq, state.last_input), (6, 3, 3));
    assert!(matches!(state.phase, Phase::InitShutdown { .. }));
    assert_eq!(ids(&model).await, ["gate"], "what was deleted is not shown");
    assert_eq!(model.scenario(&"yard".parse().unwrap()).await.unwrap().found, None);
    assert_eq!(seqs(&model, "yard").await, [4, 5], "its log is");
    let lines = model.events(&gate, 2, 1).await.unwrap();
    assert_eq!(lines, [events[1].event.clone()]);
    let yes = model.outcome(&gate, &"key-2".parse().unwrap(), 0).await.unwrap().unwrap();
    assert_eq!((yes.seq, yes.refusal), (2, None));
    let no = model.outcome(&gate, &"key-3".parse().unwrap(), 3).await.unwrap().unwrap();
    assert_eq!((no.seq, no.refusal), (3, Some(Refusal::NotRunning)));
    assert_eq!(model.outcome(&gate, &"key-3".parse().unwrap(), 4).await.unwrap(), None, "that was another use");
}

async fn a_batch_twice_is_a_batch_once(store: Store) {
    let (model, mut writer) = store.begun().await;
    let first = batch(0, vec![created(1, "gate"), refused(2, "gate", cause(2))]);
    writer.apply("1", &first).await.unwrap();
    assert_eq!(writer.apply("1", &first).await.unwrap(), 2);
    // One that overlaps brings its new part only.
    let deleted = projected(3, "gate", cause(3), EventData::ScenarioDeleted {});
    let overlapping = batch(0, vec![created(1, "gate"), refused(2, "gate", cause(2)), deleted]);
    assert_eq!(Writer::new(model.clone()).apply("1", &overlapping).await.unwrap(), 3);
    assert_eq!(seqs(&model, "gate").await, [1, 2, 3]);
    assert_eq!(ids(&model).await, [""; 0]);
    // What the first writer remembers is old now; it sees that.
    writer.apply("1", &batch(3, vec![refused(4, "gate", cause(4))])).await.unwrap();
    assert_eq!((ids(&model).await, seqs(&model, "gate").await), (vec![], vec![1, 2, 3, 4]), "it stays deleted");
}

async fn a_batch_behind_a_hole_is_refused(store: Store) {
    let (model, mut writer) = store.begun().await;
    writer.apply("1", &batch(0, vec![created(1, "gate")])).await.unwrap();
    let hole = batch(2, vec![refused(3, "gate", cause(3))]);
    assert!(matches!(writer.apply("1", &hole).await, Err(WriteError::Moved { .. })));
    assert_eq!((seqs(&model, "gate").await, model.checkpoint().await.unwrap().seq), (vec![1], 1));
    writer.apply("1", &batch(1, vec![refused(2, "gate", cause(2))])).await.unwrap();
    writer.apply("1", &hole).await.unwrap();
    assert_eq!(seqs(&model, "gate").await, [1, 2, 3]);
}

async fn a_batch_of_another_log_is_refused(store: Store) {
    let (model, mut writer) = store.begun().await;
    let other = batch(0, vec![created(1, "gate")]);
    assert!(matches!(writer.apply("2", &other).await, Err(WriteError::Moved { .. })));
    assert_eq!(ids(&model).await, [""; 0]);
}

async fn nothing_of_a_batch_that_fails_is_seen(store: Store) {
    let (model, mut writer) = store.begun().await;
    writer.apply("1", &batch(0, vec![created(1, "gate")])).await.unwrap();
    // A sequence that is there twice can't be stored: the statement fails in the middle of the transaction.
    let broken = batch(1, vec![refused(2, "gate", cause(2)), refused(2, "gate", cause(2))]);
    assert!(matches!(writer.apply("1", &broken).await, Err(WriteError::Write { .. })));
    assert_eq!(seqs(&model, "gate").await, [1]);
    writer.apply("1", &batch(1, vec![refused(2, "gate", cause(2)), refused(3, "gate", cause(3))])).await.unwrap();
    let state = model.scenario(&"gate".parse().unwrap()).await.unwrap();
    assert_eq!((state.seq, state.found.unwrap().last_input), (3, 3));
}

async fn pages_follow_one_another(store: Store) {
    let (model, mut writer) = store.begun().await;
    let names = ["a-b", "a", "b_1", "b1", "a1", "0z"];
    let events = names.iter().zip(1..).map(|(name, seq)| created(seq, name)).collect();
    writer.apply("1", &batch(0, events)).await.unwrap();
    let mut sorted = names.map(str::to_owned);
    sorted.sort_unstable();
    assert_eq!(ids(&model).await, sorted, "by their bytes");
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = model.scenarios(after.as_ref(), 2).await.unwrap();
        assert_eq!(page.seq, 6, "also of an empty page");
        let Some((last, _)) = page.found.last() else { break };
        after = Some(last.clone());
        seen.extend(page.found.into_iter().map(|(id, _)| id.to_string()));
    }
    assert_eq!(seen, sorted);
    let more: Vec<_> = (7..20).map(|seq| refused(seq, "a", cause(seq))).collect();
    writer.apply("1", &batch(6, more)).await.unwrap();
    let page = model.events(&"a".parse().unwrap(), 8, 3).await.unwrap();
    assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [8, 9, 10]);
}

async fn a_large_batch_is_taken_in_whole(store: Store) {
    let (model, mut writer) = store.begun().await;
    let name = |n: u64| format!("s{:03}", n % 700);
    let events: Vec<_> = (1..=2000)
        .map(|seq| if seq <= 700 { created(seq, &name(seq)) } else { refused(seq, &name(seq), cause(seq)) })
        .collect();
    writer.apply("1", &batch(0, events)).await.unwrap();
    let found = model.scenarios(None, 10_000).await.unwrap().found;
    assert_eq!(found.len(), 700);
    // s001 has 1, 701 and 1401; s600 has 600, 1300 and 2000.
    assert_eq!((seqs(&model, "s001").await, seqs(&model, "s600").await), (vec![1, 701, 1401], vec![600, 1300, 2000]));
    // Another writer remembers nothing and reads them all.
    let more: Vec<_> = (2001..=2700).map(|seq| refused(seq, &name(seq), cause(seq))).collect();
    Writer::new(model.clone()).apply("1", &batch(2000, more)).await.unwrap();
    let found = model.scenarios(None, 10_000).await.unwrap().found;
    assert!(found.iter().all(|(_, state)| state.generation == 1 && state.last_input > 2000), "all were folded on");
}

async fn a_key_that_is_used_again_has_the_later_outcome(store: Store) {
    let (model, mut writer) = store.begun().await;
    let (gate, key) = ("gate".parse().unwrap(), "k".parse().unwrap());
    let used = |input| Cause { input: Some(input), id: "k".into() };
    let outcome = || async { model.outcome(&gate, &key, 0).await.unwrap().unwrap().seq };
    // Of one input the first event answers, within a batch and across batches.
    writer.apply("1", &batch(0, vec![refused(1, "gate", used(5)), refused(2, "gate", used(5))])).await.unwrap();
    assert_eq!(outcome().await, 1);
    writer.apply("1", &batch(2, vec![refused(3, "gate", used(5))])).await.unwrap();
    assert_eq!(outcome().await, 1);
    writer.apply("1", &batch(3, vec![refused(4, "gate", used(7)), refused(5, "gate", used(9))])).await.unwrap();
    assert_eq!(outcome().await, 5);
    // Facts have causes too; they answer nobody.
    let fact = projected(6, "gate", used(11), EventData::SourceResumed { run: RunId::from_u128(1) });
    writer.apply("1", &batch(5, vec![fact])).await.unwrap();
    assert_eq!(outcome().await, 5);
}

async fn another_log_and_another_version_begin_anew(store: Store) {
    let (model, mut writer) = store.begun().await;
    writer.apply("1", &batch(0, vec![created(1, "gate")])).await.unwrap();
    assert_eq!(writer.claim("1", false).await.unwrap(), Claim { seq: 1, anew: false });
    assert_eq!(writer.claim("2", false).await.unwrap(), Claim { seq: 0, anew: true });
    assert_eq!((ids(&model).await, seqs(&model, "gate").await), (vec![], vec![]));
    assert_eq!(model.outcome(&"gate".parse().unwrap(), &"key-1".parse().unwrap(), 0).await.unwrap(), None);
    writer.apply("2", &batch(0, vec![created(1, "yard")])).await.unwrap();

    let set_version = async |version: &str| {
        let mut tx = model.database.begin().await.unwrap();
        tx.execute("UPDATE checkpoint SET version = $1", vec![version.into()]).await.unwrap();
        tx.commit().await.unwrap();
    };
    set_version("0.0.1").await;
    let late = writer.apply("2", &batch(1, vec![refused(2, "yard", cause(2))])).await;
    assert!(matches!(late, Err(WriteError::Moved { .. })));
    assert_eq!(writer.claim("2", false).await.unwrap(), Claim { seq: 0, anew: true }, "an older version's");
    assert_eq!(ids(&model).await, [""; 0]);

    // A file is this API's alone; on a server two would begin it anew in turns.
    set_version("99.0.0").await;
    let newer = writer.claim("2", false).await;
    if model.database.is_shared() {
        let error = newer.unwrap_err().to_string();
        assert!(error.contains("99.0.0"), "{error}");
        set_version(env!("CARGO_PKG_VERSION")).await;
        let error = writer.claim("1", false).await.unwrap_err().to_string();
        assert!(error.contains("made later"), "{error}");
        writer.begin_anew("1").await.unwrap();
    } else {
        assert_eq!(newer.unwrap(), Claim { seq: 0, anew: true });
    }
}

async fn tables_ahead_of_their_log_begin_anew(store: Store) {
    let (model, mut writer) = store.begun().await;
    writer.apply("1", &batch(0, vec![created(1, "gate")])).await.unwrap();
    assert_eq!(writer.claim("1", true).await.unwrap(), Claim { seq: 0, anew: true });
    assert_eq!(ids(&model).await, [""; 0]);
}

async fn writers_at_once_write_each_event_once(store: Store) {
    const LAST: u64 = 300;
    let (model, _) = store.begun().await;
    let write = |length: u64| {
        let place = store.place.clone();
        async move {
            let model = ReadModel::open(&place, Use::Shared).await.unwrap();
            let mut writer = Writer::new(model.clone());
            let mut at = 0;
            while at < LAST {
                let last = (at + length).min(LAST);
                let event = |seq| match seq {
                    1..=5 => created(seq, &format!("s{}", seq % 5)),
                    _ => refused(seq, &format!("s{}", seq % 5), cause(seq)),
                };
                let reached = writer.apply("1", &batch(at, (at + 1..=last).map(event).collect())).await.unwrap();
                assert!(reached >= last, "{reached} is not behind {last}");
                at = last;
            }
            model.close().await;
        }
    };
    let writers: Vec<_> = [7, 11, 13, 300].map(|length| tokio::spawn(write(length))).into();
    for writer in writers {
        writer.await.unwrap();
    }
    for n in 0..5 {
        let id = format!("s{n}");
        let of = |seq: &u64| seq % 5 == n;
        assert_eq!(seqs(&model, &id).await, (1..=LAST).filter(of).collect::<Vec<_>>());
        let state = model.scenario(&id.parse().unwrap()).await.unwrap().found.unwrap();
        assert_eq!((state.generation, state.seq), (1, (1..=LAST).rfind(of).unwrap()));
    }
}

async fn what_was_written_is_there_when_opened_again(store: Store) {
    let (model, mut writer) = store.begun().await;
    writer.apply("1", &batch(0, vec![created(1, "gate")])).await.unwrap();
    model.close().await;
    assert!(model.scenarios(None, 1).await.is_err(), "closed is closed");
    let model = store.open().await;
    assert_eq!((ids(&model).await, model.checkpoint().await.unwrap().seq), (vec!["gate".to_owned()], 1));
}
