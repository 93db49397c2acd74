//! Cameras that ask for a password, by Basic and by Digest.

use std::{collections::HashMap, io::Write};

use md5::{Digest, Md5};

use super::{
    Ground, access, frames,
    peer::{Asked, STREAM, jpeg, part, peer},
};

const USER: &str = "me";
const SECRET: &str = "hunter2";

fn md5(text: String) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a request proves that it knows the password (RFC 7616, section 3.4.1, and RFC 7617).
fn knows(asked: &Asked) -> bool {
    let Some((scheme, rest)) = asked.header("Authorization").and_then(|value| value.split_once(' ')) else {
        return false;
    };
    if scheme == "Basic" {
        // me:hunter2
        return rest == "bWU6aHVudGVyMg==";
    }
    let fields: HashMap<_, _> = rest
        .split(',')
        .filter_map(|field| field.trim().split_once('='))
        .map(|(k, v)| (k, v.trim_matches('"')))
        .collect();
    let (first, second) = (md5(format!("{USER}:door:{SECRET}")), md5(format!("GET:{}", asked.path())));
    let [nonce, nc, cnonce, qop] = ["nonce", "nc", "cnonce", "qop"].map(|name| fields[name]);
    nonce == "n0nce"
        && fields["uri"] == asked.path()
        && fields["response"] == md5(format!("{first}:{nonce}:{nc}:{cnonce}:{qop}:{second}"))
}

fn camera(challenge: &'static str) -> String {
    let image = jpeg("64x48", 20);
    peer(move |asked, stream| {
        if !knows(&asked) {
            let head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n";
            return write!(stream, "{head}WWW-Authenticate: {challenge}\r\n\r\n");
        }
        stream.write_all(STREAM.as_bytes())?;
        part(stream, &image)
    })
}

#[test]
fn a_password_is_sent_in_the_way_that_is_asked_for() {
    let ground = Ground::new();
    for challenge in ["Basic realm=\"door\"", "Digest realm=\"door\", qop=\"auth\", nonce=\"n0nce\", algorithm=MD5"] {
        let mut access = access(&format!("{}?channel=1", camera(challenge)));
        let words = ground.refusal(&access);
        assert!(words.starts_with("401: ") && words.contains("source.username"), "{words}");
        access.credentials = Some((USER.into(), "guess".into()));
        let words = ground.refusal(&access);
        assert!(words.starts_with("401: ") && words.contains("refused") && !words.contains("guess"), "{words}");
        access.credentials = Some((USER.into(), SECRET.into()));
        assert_eq!(frames(&mut ground.open(&access).unwrap(), 1).len(), 1, "{challenge}");
    }
}

#[test]
fn a_way_that_is_not_known_is_told() {
    let ground = Ground::new();
    let mut access = access(&camera("Negotiate"));
    access.credentials = Some((USER.into(), SECRET.into()));
    let words = ground.refusal(&access);
    assert!(words.contains("does not know") && !words.contains(SECRET), "{words}");
}

#[test]
fn a_password_is_for_the_host_that_it_was_given_for() {
    let ground = Ground::new();
    let other = camera("Basic realm=\"door\"");
    let url = peer(move |_, stream| {
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {other}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let mut access = access(&url);
    access.credentials = Some((USER.into(), SECRET.into()));
    let words = ground.refusal(&access);
    assert!(words.starts_with("401: "), "{words}");
}
