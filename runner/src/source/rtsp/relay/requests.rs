//! What the library asks, as the camera is to hear it. Pure but for the numbers that signatures need.
//!
//! The library believes that the camera is where the relay listens, and writes that address into each request. Most cameras
//! look at no more than the path, but some compare the host, answer with addresses made from it, or serve several by it.
//! So each request gets the camera's own address back, and the camera sees what it would see without a relay. A password's
//! digest covers that address (RFC 2617, section 3.2.2): it is computed anew, by the challenge that came before.

use http_auth::{PasswordClient, PasswordParams};

use super::framing::{HEAD, headers};

/// Requests that are none of the library's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error("another program of this machine came between kadr and the camera")]
    Stranger,
    #[error("a request that kadr makes is too large, or none")]
    Strange,
}

/// How an address as the library has it becomes the camera's.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Where the relay listens, and what only the library was told besides.
    pub(super) relay: String,
    /// The camera's scheme, host and port, as they were given.
    pub(super) camera: String,
}

impl Names {
    fn of_camera(&self, uri: &str) -> Option<String> {
        let rest = uri.strip_prefix(&self.relay)?;
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then(|| format!("{}{rest}", self.camera))
    }
}

/// The requests of one session.
pub(super) struct Requests {
    names: Names,
    credentials: Option<(String, String)>,
    challenge: Option<PasswordClient>,
    /// What has come of the next one.
    head: Vec<u8>,
    /// Whoever sends them has shown that it is the library.
    trusted: bool,
    /// The last one's `CSeq`.
    number: u64,
    /// The one that began to play.
    play: Option<Request>,
}

/// One without a body: the library sends no others.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
}

impl Requests {
    pub(super) fn new(names: Names, credentials: Option<(String, String)>) -> Self {
        Self { names, credentials, challenge: None, head: Vec::new(), trusted: false, number: 0, play: None }
    }

    /// Whether the camera has been told to play.
    pub(super) const fn plays(&self) -> bool {
        self.play.is_some()
    }

    /// Takes what comes next from the library, and gives what is to be sent to the camera.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, RequestError> {
        let mut sent = Vec::new();
        self.head.extend_from_slice(bytes);
        while let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") {
            let behind = self.head.split_off(end + 4);
            let head = std::mem::replace(&mut self.head, behind);
            let mut request = Request::parse(head).ok_or(RequestError::Strange)?;
            self.readdress(&mut request)?;
            request.write(&mut sent);
            self.number = request.header("CSeq").and_then(|number| number.parse().ok()).unwrap_or(self.number);
            if request.method == "PLAY" {
                self.play = Some(request);
            }
        }
        if self.head.len() > HEAD { Err(RequestError::Strange) } else { Ok(sent) }
    }

    fn readdress(&mut self, request: &mut Request) -> Result<(), RequestError> {
        match self.names.of_camera(&request.uri) {
            Some(uri) => request.uri = uri,
            // Later ones go to whatever address the camera gave of its streams.
            None if self.trusted => {}
            None => return Err(RequestError::Stranger),
        }
        self.trusted = true;
        self.sign(request);
        Ok(())
    }

    /// Signs anew what is signed, always: a camera may count how often its challenge was answered.
    fn sign(&mut self, request: &mut Request) {
        let (Some(challenge), Some((username, password))) = (&mut self.challenge, &self.credentials) else { return };
        let params = PasswordParams { username, password, uri: &request.uri, method: &request.method, body: Some(&[]) };
        let signed = request.headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("Authorization"));
        if let (Some((_, value)), Ok(authorization)) = (signed, challenge.respond(&params)) {
            *value = authorization;
        }
    }

    /// Listens for challenges among the camera's answers.
    pub(super) fn answered(&mut self, head: &[u8]) {
        if !asks(head) {
            return;
        }
        let mut challenges = PasswordClient::builder();
        for (_, value) in headers(head).filter(|(name, _)| name.eq_ignore_ascii_case(b"www-authenticate")) {
            if let Ok(value) = std::str::from_utf8(value) {
                challenges = challenges.challenges(value);
            }
        }
        // One that can't be understood is refused by the library, in its own words.
        self.challenge = challenges.build().ok();
    }

    /// Whether an answer is that to the last request.
    pub(super) fn answers_last(&self, head: &[u8]) -> bool {
        let number = headers(head).find(|(name, _)| name.eq_ignore_ascii_case(b"cseq")).map(|(_, value)| value);
        number.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok()) == Some(self.number)
    }

    /// What ends the session at the camera, if it was told to play; each time a new one, signed by the newest challenge.
    pub(super) fn teardown(&mut self) -> Option<Vec<u8>> {
        let mut request = self.play.clone()?;
        request.method = "TEARDOWN".to_owned();
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Range"));
        self.number = self.number.saturating_add(1);
        let number = self.number.to_string();
        let counted = request.headers.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("CSeq"));
        counted.map(|(_, value)| *value = number)?;
        self.sign(&mut request);
        let mut sent = Vec::new();
        request.write(&mut sent);
        Some(sent)
    }
}

/// Whether an answer asks for a password.
pub(super) fn asks(head: &[u8]) -> bool {
    head.starts_with(b"RTSP/1.0 401")
}

impl Request {
    fn parse(head: Vec<u8>) -> Option<Self> {
        let head = String::from_utf8(head).ok()?;
        let (first, rest) = head.split_once("\r\n")?;
        let mut words = first.split(' ');
        let (method, uri) = (words.next()?.to_owned(), words.next()?.to_owned());
        (words.next()? == "RTSP/1.0" && words.next().is_none()).then_some(())?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        let headers = rest.split("\r\n").filter(|line| !line.is_empty()).map(header).collect::<Option<Vec<_>>>()?;
        Some(Self { method, uri, headers })
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(format!("{} {} RTSP/1.0\r\n", self.method, self.uri).bytes());
        for (name, value) in &self.headers {
            to.extend(format!("{name}: {value}\r\n").bytes());
        }
        to.extend(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "rtsp://127.0.0.1:4711/0123";

    fn requests(credentials: Option<(&str, &str)>) -> Requests {
        let names = Names { relay: RELAY.to_owned(), camera: "rtsps://cam:322".to_owned() };
        Requests::new(names, credentials.map(|(name, password)| (name.to_owned(), password.to_owned())))
    }

    fn sent(requests: &mut Requests, text: &str) -> String {
        String::from_utf8(requests.push(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_camera_sees_its_own_address() {
        let mut requests = requests(None);
        let text = format!("DESCRIBE {RELAY}/a?b=c RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        let (first, second) = text.split_at(30);
        assert_eq!(sent(&mut requests, first), "");
        assert_eq!(sent(&mut requests, second), "DESCRIBE rtsps://cam:322/a?b=c RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        // What the camera said of its streams is left as it is, and so is what only looks like the relay's.
        for uri in ["rtsp://10.0.0.7/a/track1", "*", "rtsp://127.0.0.1:4711/01234"] {
            let text = format!("SETUP {uri} RTSP/1.0\r\nCSeq: 2\r\n\r\n");
            assert_eq!(sent(&mut requests, &text), text);
        }
        let two = format!("OPTIONS {RELAY} RTSP/1.0\r\nCSeq: 3\r\n\r\n").repeat(2);
        assert_eq!(sent(&mut requests, &two).matches("OPTIONS rtsps://cam:322 RTSP/1.0").count(), 2);
    }

    #[test]
    fn who_does_not_know_the_address_is_a_stranger() {
        for uri in ["rtsp://127.0.0.1:4711/a", "*", "rtsps://cam:322/a", "rtsp://127.0.0.1:4711/01234/a"] {
            let text = format!("DESCRIBE {uri} RTSP/1.0\r\nCSeq: 1\r\n\r\n");
            assert_eq!(requests(None).push(text.as_bytes()), Err(RequestError::Stranger), "{uri}");
        }
        assert_eq!(requests(None).push(b"GET / HTTP/1.1\r\n\r\n"), Err(RequestError::Strange));
        assert_eq!(requests(None).push(&vec![b'x'; HEAD + 1]), Err(RequestError::Strange));
    }

    /// The fields of a digest.
    fn field<'a>(request: &'a str, name: &str) -> &'a str {
        let from = request.split_once(&format!("{name}=\"")).unwrap().1;
        from.split_once('"').unwrap().0
    }

    #[test]
    fn passwords_are_digested_with_the_cameras_address() {
        let mut requests = requests(Some(("me", "hunter2")));
        sent(&mut requests, &format!("DESCRIBE {RELAY}/a RTSP/1.0\r\nCSeq: 1\r\n\r\n"));
        requests.answered(
            b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
              WWW-Authenticate: Digest realm=\"x\", nonce=\"77\"\r\n\r\n",
        );
        let stale = format!("Authorization: Digest username=\"me\", uri=\"{RELAY}/a\", response=\"0\"");
        let signed = sent(&mut requests, &format!("DESCRIBE {RELAY}/a RTSP/1.0\r\n{stale}\r\nCSeq: 2\r\n\r\n"));
        assert_eq!(field(&signed, "uri"), "rtsps://cam:322/a");
        // md5("md5(me:x:hunter2):77:md5(DESCRIBE:rtsps://cam:322/a)"), as other tools compute it.
        let md5 = |text: String| {
            use md5::{Digest, Md5};
            Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let (user, asked) = (md5("me:x:hunter2".into()), md5("DESCRIBE:rtsps://cam:322/a".into()));
        assert_eq!(field(&signed, "response"), md5(format!("{user}:77:{asked}")));
        assert!(!signed.contains("127.0.0.1") && !signed.contains("hunter2"));
    }

    #[test]
    fn what_played_is_ended() {
        let mut requests = requests(None);
        assert_eq!(requests.teardown(), None);
        sent(&mut requests, &format!("PLAY {RELAY}/a/ RTSP/1.0\r\nCSeq: 4\r\nRange: npt=0-\r\nSession: 9\r\n\r\n"));
        assert!(requests.plays());
        sent(&mut requests, &format!("GET_PARAMETER {RELAY}/a/ RTSP/1.0\r\nCSeq: 5\r\n\r\n"));
        let ending = "TEARDOWN rtsps://cam:322/a/ RTSP/1.0\r\nCSeq: 6\r\nSession: 9\r\n\r\n";
        assert_eq!(requests.teardown().as_deref(), Some(ending.as_bytes()));
        assert!(requests.answers_last(b"RTSP/1.0 200 OK\r\nCSeq: 6\r\n\r\n"));
        assert!(!requests.answers_last(b"RTSP/1.0 200 OK\r\nCSeq: 5\r\n\r\n"), "that of before");
        assert!(!requests.answers_last(b"RTSP/1.0 200 OK\r\n\r\n"));
        assert_eq!(requests.teardown().as_deref(), Some(ending.replace("CSeq: 6", "CSeq: 7").as_bytes()));
    }
}
