//! A real browser without a window, driven over WebDriver (W3C): Chromium by its ChromeDriver.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use kadr_shared::testkit::{eventually, free_ports};
use serde_json::{Value, json};
use tempfile::TempDir;

/// No script runs longer.
const PATIENCE_MS: u64 = 40_000;

/// Ends with it.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let port = free_ports(1)[0];
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own, so that the browser ends with its driver.
        command.process_group(0);
        let driver = command.spawn().expect("chromium and chromium-driver are installed (scripts/deps.sh ci)");
        let address = format!("http://127.0.0.1:{port}");
        let status = format!("{address}/status");
        eventually("ChromeDriver", || async { reqwest::get(&status).await.ok() }).await;
        let profile = TempDir::with_prefix("kadr-browser-").unwrap();
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            "--window-size=800,600",
            format!("--user-data-dir={}", profile.path().display()),
        ]);
        let wanted = json!({
            "browserName": "chrome", "goog:chromeOptions": {"args": arguments}, "timeouts": {"script": PATIENCE_MS},
        });
        let made = call(&format!("{address}/session"), json!({"capabilities": {"alwaysMatch": wanted}})).await;
        let session = format!("{address}/session/{}", made["sessionId"].as_str().expect("a session"));
        Self { driver, session, _profile: profile }
    }

    pub(crate) async fn open(&self, address: &str) {
        call(&format!("{}/url", self.session), json!({"url": address})).await;
    }

    /// Runs a script in the page; what it gives to its last argument, a function.
    pub(crate) async fn script(&self, script: &str, arguments: Value) -> Value {
        call(&format!("{}/execute/async", self.session), json!({"script": script, "args": arguments})).await
    }

    pub(crate) async fn close(self) {
        reqwest::Client::new().delete(&self.session).send().await.unwrap();
    }
}

async fn call(address: &str, body: Value) -> Value {
    let response = reqwest::Client::new().post(address).json(&body).send().await.unwrap();
    let (status, mut answer) = (response.status(), response.json::<Value>().await.unwrap());
    assert!(status.is_success(), "{address}: {answer}");
    answer["value"].take()
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", "--", &format!("-{}", self.driver.id())]).status();
        let _ = self.driver.wait();
    }
}
