//! `kadr up` and the commands that talk to it: a life with restarts.

use std::{fs, process::Command};

use kadr_shared::{nats::Nats, testkit::eventually};

use crate::support::{
    clips::{clip, plain},
    home::Home,
    http,
    lines::{WHOLE_RUN, types},
    process::{Process, running},
    store::{at_least, each_frame_once, happened, log_of, stored},
    up::Up,
};

/// The process of `kadr up`'s own NATS server.
fn nats_server(home: &Home) -> u32 {
    fs::read_to_string(home.path("data/nats/nats-server.pid")).unwrap().trim().parse().unwrap()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
}

/// Waits until a scenario has this state.
async fn has_state(up: &Up, home: &Home, id: &str, state: &str) -> serde_json::Value {
    eventually(&format!("{id} is {state}"), || async {
        let shown = up.kadr(home, &format!("scenario get {id} --json")).await.json();
        (shown["state"] == state).then_some(shown)
    })
    .await
}

/// A clip whose analysis takes some seconds.
fn long_clip(home: &Home, frames: usize) {
    let options = format!("-frames:v {frames} -c:v libx264 -preset ultrafast -pix_fmt yuv420p");
    clip(home, "clip.mp4", "s=160x120:r=25", &options);
}

#[tokio::test]
async fn a_scenario_is_created_listed_run_replayed_and_deleted() {
    let home = Home::new();
    plain(&home, "clip.mp4", 20);
    let up = Up::start(&home).await;
    let shown = up.kadr(&home, "scenario create gate --source clip.mp4 --model tiny --classes car").await.success();
    for word in ["gate", "inactive", "clip.mp4", "tiny", "car"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let created = up.kadr(&home, "scenario create yard --source clip.mp4 --model tiny --json").await.json();
    assert_eq!((&created["id"], &created["state"]), (&"yard".into(), &"inactive".into()));
    let listed = up.kadr(&home, "scenario list --json").await.json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|scenario| scenario["id"].clone()).collect();
    assert_eq!(ids, ["gate", "yard"]);
    let listed = up.kadr(&home, "scenario list").await.success();
    assert!(listed.contains("gate") && listed.contains("yard") && listed.contains("inactive"), "{listed}");

    let mut tail = home.command(["events", "tail", "gate", "--api", &up.api]);
    let tail = Process::start(&mut tail);
    tail.line_after("scenario_created").await;
    let started = up.kadr(&home, "scenario start gate").await.success();
    assert!(started.contains("start of gate accepted (event "), "{started}");
    tail.line_after("deactivated").await;
    tail.signal("INT");
    let followed = tail.ended().await.success();
    for kind in WHOLE_RUN {
        assert_eq!(followed.matches(&format!(" {kind} ")).count(), 1, "{kind} in {followed}");
    }

    let shown = has_state(&up, &home, "gate", "inactive").await;
    assert_eq!((&shown["progress"]["frame"], &shown["ended"]["reason"]), (&20.into(), &"completed".into()), "{shown}");
    let replayed = up.kadr(&home, "events replay gate").await.success();
    let states: Vec<_> = replayed.lines().filter_map(|line| line.trim().strip_prefix("-> ")).collect();
    let begin = |text: &str| text.split(',').next().unwrap().to_owned();
    assert_eq!(
        states.iter().map(|state| begin(state)).collect::<Vec<_>>(),
        [
            "inactive",
            "init_startup",
            "in_startup_processing",
            "active",
            "init_shutdown",
            "in_shutdown_processing",
            "inactive"
        ]
    );
    assert!(states[6].contains("ended: completed"), "{replayed}");
    let lines = up.kadr(&home, "events replay gate --json --from 3").await.success();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["event"]["seq"].as_u64().unwrap() >= 3 && line["state"].is_object()));
    assert_eq!(lines.last().unwrap()["event"]["type"], "deactivated");

    let deleted = up.kadr(&home, "scenario delete gate").await.success();
    assert!(deleted.contains("deleted gate; its log stays"), "{deleted}");
    up.kadr(&home, "scenario get gate").await.failed(1, &["no scenario"]);
    up.kadr(&home, "events replay gate").await.success();
    up.process.stop().await.success();
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_without_the_tables() {
    let home = Home::new();
    plain(&home, "clip.mp4", 5);
    let up = Up::start(&home).await;
    up.create(&home, "gate", "clip.mp4").await;
    up.kadr(&home, "scenario start gate").await.success();
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    happened(&nats, "gate", "deactivated").await;
    let scenario = has_state(&up, &home, "gate", "inactive").await;
    let log = up.kadr(&home, "events replay gate --json").await.success();
    up.process.stop().await.success();
    for without_tables in [false, true] {
        if without_tables {
            let tables: Vec<_> = home.names_in("data").into_iter().filter(|name| name.contains("sqlite")).collect();
            assert!(tables.contains(&"api.sqlite3".to_owned()), "{tables:?}");
            for table in tables {
                fs::remove_file(home.path("data").join(table)).unwrap();
            }
        }
        let up = Up::start(&home).await;
        eventually("the tables have followed the log", || async {
            (http::get(&format!("{}/health/ready", up.api)).await.status == 200).then_some(())
        })
        .await;
        let mut shown = up.kadr(&home, "scenario get gate --json").await.json();
        // How it fared is told while it runs, and not kept.
        shown["health"] = scenario["health"].clone();
        assert_eq!(shown, scenario, "without its tables: {without_tables}");
        assert_eq!(up.kadr(&home, "events replay gate --json").await.success(), log);
        let nats = Nats::connect(&up.nats, "test").await.unwrap();
        each_frame_once(&nats, "gate", 5).await;
        up.process.stop().await.success();
    }
}

#[tokio::test]
async fn either_signal_ends_it_in_order() {
    let home = Home::new();
    for name in ["INT", "TERM"] {
        let up = Up::start(&home).await;
        let server = nats_server(&home);
        assert!(running(server));
        up.process.signal(name);
        let shown = up.process.ended().await.success();
        assert!(shown.contains("stopping"), "{shown}");
        assert!(!running(server), "its NATS server is gone");
        let log = fs::read_to_string(home.path("data/nats/nats-server.log")).unwrap();
        assert!(log.contains("Server Exiting"), "NATS was shut down in order: {log}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let home = Home::new();
    let up = Up::start(&home).await;
    let server = nats_server(&home);
    // Without its NATS the ordered shutdown has to wait.
    signal("STOP", server);
    up.process.signal("INT");
    up.process.line_after("stopping").await;
    up.process.signal("INT");
    let ended = up.process.ended().await;
    signal("CONT", server);
    ended.failed(130, &["at once"]);
    eventually("its NATS server is gone", || async { (!running(server)).then_some(()) }).await;
}

#[tokio::test]
async fn killed_it_leaves_no_server_behind() {
    let home = Home::new();
    let up = Up::start(&home).await;
    let server = nats_server(&home);
    up.process.kill();
    eventually("its NATS server is gone", || async { (!running(server)).then_some(()) }).await;
}

/// Starts a run, ends `kadr up` in its middle by `end`, and looks at what the next `kadr up` makes of it.
async fn goes_on_after(end: impl AsyncFnOnce(Process)) -> Vec<String> {
    const FRAMES: usize = 200;
    let home = Home::new();
    long_clip(&home, FRAMES);
    let up = Up::start(&home).await;
    up.create(&home, "gate", "clip.mp4").await;
    up.kadr(&home, "scenario start gate").await.success();
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    at_least(&nats, "gate", 5).await;
    let server = nats_server(&home);
    end(up.process).await;
    eventually("its NATS server is gone", || async { (!running(server)).then_some(()) }).await;

    let up = Up::start(&home).await;
    let nats = Nats::connect(&up.nats, "test").await.unwrap();
    let before = stored(&nats, "gate").await;
    let last = happened(&nats, "gate", "deactivated").await;
    assert!((5..FRAMES).contains(&before), "{before} of {FRAMES} before the restart");
    assert_eq!((&last["data"]["reason"], &last["data"]["frames"]), (&"completed".into(), &FRAMES.into()), "{last}");
    each_frame_once(&nats, "gate", FRAMES).await;
    let log = log_of(&nats, "gate").await;
    up.process.stop().await.success();
    types(&log).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_run_goes_on_after_an_ordered_restart_with_each_frame_stored_once() {
    let types = goes_on_after(async |process| {
        process.stop().await.success();
    })
    .await;
    assert_eq!(types.iter().filter(|kind| *kind == "start_requested").count(), 2, "{types:?}");
}

#[tokio::test]
async fn a_run_goes_on_after_a_crash_with_each_frame_stored_once() {
    let types = goes_on_after(async |process| process.kill()).await;
    assert_eq!(types.iter().filter(|kind| *kind == "start_requested").count(), 2, "{types:?}");
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let home = Home::new();
    let file = "nats = \"nats://127.0.0.1:1\"\nlisten = \"127.0.0.1:0\"\ndata = \"from-file\"\n";
    fs::write(home.path("kadr.toml"), file).unwrap();
    // Which address does not answer tells which one was taken.
    home.kadr("up").await.failed(2, &["nats://127.0.0.1:1:"]);
    let mut by_environment = home.command(["up"]);
    by_environment.env("KADR_NATS", "nats://127.0.0.1:2");
    Process::start(&mut by_environment).ended().await.failed(2, &["nats://127.0.0.1:2:"]);
    by_environment.args(["--nats", "nats://127.0.0.1:3"]);
    Process::start(&mut by_environment).ended().await.failed(2, &["nats://127.0.0.1:3:"]);

    fs::rename(home.path("kadr.toml"), home.path("mine.toml")).unwrap();
    fs::write(home.path("mine.toml"), "listen = \"127.0.0.1:1\"\ndata = \"from-file\"\nthreads = 1\n").unwrap();
    let mut command = home.command(["up", "--config", "mine.toml"]);
    command.env("KADR_LISTEN", "127.0.0.1:0");
    let up = Up::of(Process::start(&mut command)).await;
    assert_eq!(up.process.line_after("data  ").await, "from-file");
    assert_eq!(http::get(&format!("{}/health/live", up.api)).await.status, 200);
    up.process.stop().await.success();
    assert!(home.path("from-file/api.sqlite3").exists());
}
