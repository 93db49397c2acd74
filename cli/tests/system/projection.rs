//! `kadr projection rebuild`, and the setting `database`.

use kadr_shared::{
    domain::{Cause, EventData},
    log,
    testkit::TestServer,
};

use crate::support::{home::Home, process::Process};

#[tokio::test]
async fn tables_are_rebuilt_from_the_log_but_not_under_an_api() {
    let home = Home::new();
    let server = TestServer::start().await;
    let nats = server.nats().await;
    let settings = serde_json::from_str(r#"{"source": {"url": "/a.mp4"}}"#).unwrap();
    let created = EventData::ScenarioCreated { settings, generation: 1 };
    let cause = Cause { input: None, id: "test".into() };
    log::append(&nats, &"gate".parse().unwrap(), 0, cause, "test".into(), &created).await.unwrap();

    let rebuild = format!("projection rebuild --data data --nats {}", server.url());
    let ended = home.kadr(&rebuild).await;
    assert_eq!(ended.stderr, "", "no bar where nobody sees it");
    let told = ended.success();
    for word in ["rebuilt sqlite:data/api.sqlite3", "from 1 events", "up to sequence 1", "events/s"] {
        assert!(told.contains(word), "{word} in {told}");
    }

    let api = format!("api --listen 127.0.0.1:0 --data data --nats {}", server.url());
    let mut api = home.command(api.split(' '));
    let api = Process::start(api.env("KADR_LOG", "info"));
    api.line_after("following the log").await;
    home.kadr(&rebuild).await.failed(2, &["api.sqlite3", "stop the API"]);
    api.stop().await.success();
    home.kadr(&rebuild).await.success();
}

#[tokio::test]
async fn a_database_that_is_none_is_refused_without_showing_a_password() {
    let home = Home::new();
    for (database, word) in [
        ("mysql://me:secret@db/kadr", "postgres://user:password@host/database"),
        ("postgres://me:secret@db", "names no database"),
        ("postgres://me:secret@db/kadr?secret=1", "kadr takes sslmode"),
    ] {
        let ended =
            home.kadr(&format!("projection rebuild --database {database}")).await.failed(2, &["--database", word]);
        assert!(!ended.stderr.contains(":secret"), "{}", ended.stderr);
        std::fs::write(home.path("kadr.toml"), format!("database = \"{database}\"\n")).unwrap();
        let ended = home.kadr("api").await.failed(2, &["database", word]);
        assert!(!ended.stderr.contains(":secret"), "{}", ended.stderr);
        std::fs::remove_file(home.path("kadr.toml")).unwrap();
    }
    // Nobody is there: told, and not by its password.
    let server = TestServer::start().await;
    let away = "postgres://me:secret@127.0.0.1:1/kadr";
    let ended = home.kadr(&format!("projection rebuild --database {away} --nats {}", server.url())).await;
    let ended = ended.failed(1, &["can't open postgres://me@127.0.0.1:1/kadr", "see that PostgreSQL runs"]);
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
}
