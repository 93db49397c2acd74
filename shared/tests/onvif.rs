//! A device on this machine: it is found, tells what it has by its own clock, and shows what is wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use kadr_shared::{
    onvif::{Credentials, Device, DiscoverError, OnvifError, Search, Wish, discover},
    testkit::{DeviceLike, TestDevice},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use url::Url;

const DAY: i64 = 24 * 60 * 60 * 1000;

fn like(user: Option<(&str, &str)>, ahead_ms: i64, new: bool) -> DeviceLike {
    let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
    DeviceLike { user, ahead_ms, stream: "rtsp://127.0.0.1:8554/cam".into(), new, guarded: false }
}

fn me(password: &str) -> Option<Credentials> {
    Some(Credentials { username: "me".into(), password: password.into() })
}

fn service(device: &TestDevice) -> Url {
    Url::parse(&format!("{}/onvif/device_service", device.url().replacen("onvif", "http", 1))).unwrap()
}

#[tokio::test]
async fn a_device_whose_clock_is_wrong_tells_its_streams_to_who_knows_the_password() {
    for (new, ahead) in [(false, 0), (false, 3 * DAY), (false, -9 * DAY), (true, 400 * DAY)] {
        let device = TestDevice::start(like(Some(("me", "hunter2")), ahead, new)).await;
        let opened = Device::open(service(&device), me("hunter2")).await.unwrap();
        let profiles = opened.profiles().await.unwrap();
        let chosen = Wish::default().choose(&profiles).unwrap();
        assert_eq!((chosen.token.as_str(), chosen.size.unwrap().to_string()), ("main", "1920x1080".into()));
        let stream = opened.stream(chosen).await.unwrap();
        assert_eq!(stream.as_str(), "rtsp://127.0.0.1:8554/cam?profile=main", "without what was written into it");
        assert_eq!(device.asked()[0], "GetSystemDateAndTime");
    }
}

#[tokio::test]
async fn who_does_not_know_the_password_is_told_so() {
    let device = TestDevice::start(like(Some(("me", "hunter2")), DAY, false)).await;
    let ask = async |credentials| Device::open(service(&device), credentials).await.unwrap().profiles().await;
    assert_eq!(ask(None).await, Err(OnvifError::NeedsCredentials));
    assert_eq!(ask(me("guess")).await, Err(OnvifError::Refused));
    assert!(ask(me("hunter2")).await.is_ok());
}

#[tokio::test]
async fn a_device_that_tells_nothing_to_strangers_is_asked_by_the_digest_of_http() {
    // Its clock is wrong, and it looks at what stands in the envelope, too.
    for new in [false, true] {
        let device = DeviceLike { guarded: true, ..like(Some(("me", "hunter2")), DAY, new) };
        let device = TestDevice::start(device).await;
        let ask = async |credentials| Device::open(service(&device), credentials).await?.profiles().await;
        assert!(ask(me("hunter2")).await.is_ok_and(|profiles| profiles.len() == 2));
        assert_eq!(ask(me("guess")).await, Err(OnvifError::Refused));
        assert_eq!(ask(None).await, Err(OnvifError::NeedsCredentials));
    }
}

#[tokio::test]
async fn devices_are_found_with_what_they_can_send_or_why_they_do_not_tell() {
    let device = TestDevice::start(like(Some(("me", "hunter2")), DAY, false)).await;
    let search = Search {
        host: Some("127.0.0.1".into()),
        port: device.listens().port(),
        credentials: me("hunter2"),
        ..Search::default()
    };
    let found = discover(&search).await.unwrap();
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(one.source(), device.url(), "of the addresses that it names, the one that answered");
    assert_eq!((one.name.as_deref(), one.hardware.as_deref()), (Some("Front door"), Some("TEST-1")));
    let tokens: Vec<_> = one.profiles.as_ref().unwrap().iter().map(|profile| profile.token.as_str()).collect();
    assert_eq!(tokens, ["main", "sub"]);
    let unknown = discover(&Search { credentials: None, ..search.clone() }).await.unwrap();
    assert_eq!(unknown[0].profiles, Err(OnvifError::NeedsCredentials));
}

#[tokio::test]
async fn a_host_that_does_not_answer_the_question_is_asked_on_the_web() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let device = TestDevice::start(like(None, 0, true)).await;
    let host = device.url().replacen("onvif://", "", 1);
    let search = Search {
        host: Some(host),
        port: silent.local_addr().unwrap().port(),
        wait: Duration::from_millis(100),
        ..Search::default()
    };
    let found = discover(&search).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].source(), device.url());
    assert!(found[0].profiles.as_ref().unwrap().iter().any(|profile| profile.codec.as_deref() == Some("H265")));
    let nobody = Search { host: Some("127.0.0.1:1".into()), ..search.clone() };
    assert_eq!(discover(&nobody).await.unwrap(), []);
    for bad in ["", "/", "a b", "me:hunter2@host", "host:x", "host/path", "host?a"] {
        let error = discover(&Search { host: Some(bad.into()), ..search.clone() }).await.unwrap_err();
        assert!(matches!(error, DiscoverError::Host), "{error}");
    }
}

/// A web server that answers everything with these bytes, and then says nothing or goes.
async fn hostile(answer: Vec<u8>, stays: bool) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/onvif/device_service", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                // An answer that comes before its question is no answer.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&answer).await;
                if stays {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_hostile_device_costs_little_and_is_told_in_words() {
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'a'; 3 << 20]].concat();
    let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>";
    let deep = "<a>".repeat(50_000);
    for (answer, words) in [
        (b"nonsense\r\n\r\n".to_vec(), "nothing answers as an ONVIF device"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), "404"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec(), "301"),
        (endless, "larger than"),
        (ok(bomb), "no readable XML"),
        (ok(&deep), "no readable XML"),
        (ok("{}"), "no readable XML"),
    ] {
        let url = hostile(answer, false).await;
        let error = match Device::open(url, me("hunter2")).await {
            Ok(_) => panic!("{words}: it is no device"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
    }
    let url = hostile(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<a>".to_vec(), true).await;
    assert!(matches!(Device::open(url, None).await, Err(OnvifError::Silent { .. })));
}
