//! Cameras that are asked where their streams are, each time anew.

use kadr_runner::source::{Access, SourceError};
use kadr_shared::{
    onvif::Wish,
    testkit::{DeviceLike, TestCamera, TestDevice},
};

use super::{Ground, access, frames, playing::clip};

/// A device whose clock is three days ahead.
pub(crate) fn device(ground: &Ground, user: Option<(&str, &str)>, stream: &str) -> TestDevice {
    let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
    let ahead_ms = 3 * 24 * 60 * 60 * 1000;
    ground.runtime.block_on(TestDevice::start(DeviceLike {
        user,
        ahead_ms,
        stream: stream.into(),
        new: false,
        guarded: false,
    }))
}

fn asking(url: &str, wish: Wish, password: &str) -> Access {
    Access { device: Some(wish), credentials: Some(("me".into(), password.into())), ..access(url) }
}

#[test]
#[cfg_attr(not(kadr_fixtures), ignore = "needs KADR_FIXTURES, the folder of reference data")]
fn a_device_is_asked_for_its_stream_at_each_connection() {
    let (folder, ground) = (tempfile::tempdir().unwrap(), Ground::new());
    let clip = clip(&folder, "-bf 0");
    let me = Some(("me", "hunter2"));
    let camera = TestCamera::start(&clip, 10, None, me);
    let device = device(&ground, me, &camera.url());
    let access = asking(&device.url(), Wish { fps: Some(10.0), ..Wish::default() }, "hunter2");
    frames(&mut ground.open(&access).unwrap(), 3);
    // It comes back with another address.
    drop(camera);
    let moved = TestCamera::start(&clip, 10, None, me);
    assert!(ground.open(&access).is_err());
    device.move_stream(moved.url());
    frames(&mut ground.open(&access).unwrap(), 3);
    let times = device.asked().iter().filter(|asked| *asked == "GetStreamUri").count();
    assert_eq!(times, 3, "{:?}", device.asked());
}

#[test]
fn what_is_wrong_with_a_device_is_told_in_words() {
    let ground = Ground::new();
    let device = device(&ground, Some(("me", "hunter2")), "rtsp://127.0.0.1:1/cam");
    let refusal = |wish, password| ground.refusal(&asking(&device.url(), wish, password));
    let wrong = refusal(Wish::default(), "guess");
    assert!(wrong.contains("refused the user name or the password") && !wrong.contains("guess"), "{wrong}");
    let other = Wish { profile: Some("third".into()), ..Wish::default() };
    let error = ground.open(&asking(&device.url(), other, "hunter2")).err().unwrap();
    assert!(matches!(error, SourceError::NoStream { .. }), "{error}: another session would find the same");
    assert!(error.to_string().contains("mainStream (H264 1920x1080), subStream"), "{error}");
    let unknown = Access { device: Some(Wish::default()), ..access(&device.url()) };
    assert!(ground.refusal(&unknown).contains("give source.username"));
    // It tells, and its stream is gone.
    assert!(refusal(Wish::default(), "hunter2").contains("nothing accepts connections at 127.0.0.1:1"));
    let nobody = asking("onvif://127.0.0.1:1", Wish::default(), "hunter2");
    assert!(ground.refusal(&nobody).contains("nothing answers as an ONVIF device at 127.0.0.1:1"));
}
