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
        let told = profiles.iter().map(|profile| {
            let (codec, size) = (profile.codec.as_deref().unwrap(), profile.size.unwrap());
            format!("{} {} {codec} {size} {}", profile.token, profile.name, profile.fps.unwrap())
        });
        let wanted = [
            "Profile_1 mainStream H264 1920x1080 25",
            "Profile_2 subStream H264 704x480 15",
            "Profile_3 mainStream2 H264 1280x720 25",
            "Profile_4 subStream2 JPEG 704x480 10",
        ];
        assert_eq!(told.collect::<Vec<_>>(), wanted);
        let wish = |size: &str| Wish { size: size.parse().ok(), ..Wish::default() };
        for (wish, chosen) in [(Wish::default(), "Profile_1"), (wish("640x480"), "Profile_2")] {
            assert_eq!(wish.choose(&profiles).unwrap().token, chosen);
        }
        let images = Wish { profile: Some("subStream2".into()), ..Wish::default() };
        assert!(matches!(images.choose(&profiles), Err(NoProfile::Codec { codec, .. }) if codec == "JPEG"));
    });
    // It has no camera behind it: the address that it gives is what is tried.
    let access = Access { device: Some(Wish::default()), credentials: admin("admin"), ..access(&oxvif.url()) };
    let words = ground.refusal(&access);
    assert!(words.contains("nothing accepts connections at 127.0.0.1:554"), "{words}");
}
