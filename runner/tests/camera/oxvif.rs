//! An ONVIF device that nobody here wrote: oxvif's, which scripts/onvif-device.sh builds.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use kadr_runner::source::Access;
use kadr_shared::onvif::{Credentials, Device, NoProfile, OnvifError, Wish};
use url::Url;

use super::{Ground, access};

/// Ends with it.
struct Oxvif {
    process: Child,
    service: Url,
}

impl Oxvif {
    fn start(arguments: &[&str]) -> Self {
        let program = std::env::var_os("KADR_ONVIF_DEVICE").expect("it was set when this was built");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("scripts/onvif-device.sh has built it");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, service: line.trim().parse().expect("its address") }
    }

    /// As a source's address.
    fn url(&self) -> String {
        self.service.as_str().replacen("http", "onvif", 1)
    }
}

impl Drop for Oxvif {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn admin(password: &str) -> Option<(String, String)> {
    Some(("admin".into(), password.into()))
}

#[test]
#[cfg_attr(not(kadr_onvif_device), ignore = "needs KADR_ONVIF_DEVICE, the program that scripts/onvif-device.sh builds")]
fn its_profiles_are_read_and_its_stream_is_asked_for() {
    let ground = Ground::new();
    let oxvif = Oxvif::start(&["--password"]);
    let credentials = |password: &str| Some(Credentials { username: "admin".into(), password: password.into() });
    ground.runtime.block_on(async {
        let profiles = async |credentials| Device::open(oxvif.service.clone(), credentials).await?.profiles().await;
        assert_eq!(profiles(None).await, Err(OnvifError::NeedsCredentials));
        assert!(profiles(credentials("guess")).await.is_err());
        let profiles = profiles(credentials("admin")).await.unwrap();
        let told: Vec<_> = profiles.iter().map(|profile| format!("{profile:?}")).collect();
        assert_eq!(told, Vec::<String>::new());
        let none = Wish { profile: Some("none of them".into()), ..Wish::default() };
        assert!(matches!(none.choose(&profiles), Err(NoProfile::NoH264 { .. } | NoProfile::Codec { .. })));
    });
    // It has no camera behind it: the address that it gives is what is tried.
    let access = Access { device: Some(Wish::default()), credentials: admin("admin"), ..access(&oxvif.url()) };
    let words = ground.refusal(&access);
    assert!(words.contains("nothing accepts connections at 127.0.0.1:554"), "{words}");
}
