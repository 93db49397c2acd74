//! Recordings of deleted scenarios go; those of a later scenario with the same name stay.

use std::fs;

use kadr_shared::{domain::EventData, testkit::eventually};

use crate::world::World;

#[tokio::test]
async fn a_deleted_scenarios_recordings_are_erased_and_a_later_ones_are_not() {
    let world = World::start().await;
    let (gate, yard) = ("gate".parse().unwrap(), "yard".parse().unwrap());
    let recordings = world.folder.path().join("recordings");
    let record = |name: &str| {
        fs::create_dir_all(recordings.join(name)).unwrap();
        fs::write(recordings.join(name).join("run.mp4"), "video").unwrap();
    };
    let gone = |name: &'static str| {
        let folder = recordings.join(name);
        async move { eventually("the folder is gone", || async { (!folder.exists()).then_some(()) }).await }
    };
    // Of a scenario before this runner's time, in another folder.
    world.append(&yard, EventData::ScenarioDeleted {}).await;
    let runner = world.runner(1);
    eventually("it has begun to follow", || async { recordings.join(".erased").exists().then_some(()) }).await;
    record("gate");
    record("yard");
    let done = || fs::read_to_string(recordings.join(".erased")).unwrap();
    let before = done();
    world.append(&gate, EventData::ScenarioDeleted {}).await;
    gone("gate").await;
    eventually("it is written down that this is done", || async { (done() != before).then_some(()) }).await;
    runner.kill();

    // Deleted while it is away.
    record("gate");
    record("hall");
    world.append(&"hall".parse().unwrap(), EventData::ScenarioDeleted {}).await;
    let _runner = world.runner(1);
    gone("hall").await;
    assert!(recordings.join("gate/run.mp4").exists(), "that deletion was done before this was recorded");
    assert!(recordings.join("yard/run.mp4").exists(), "it was not deleted since");
}
