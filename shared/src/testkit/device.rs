//! An ONVIF device, as far as a test can have one: it answers as cameras do, by a clock of its own, and only to those who
//! know its password by that clock.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::digest;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use crate::time::Timestamp;

/// What it takes for its own time.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Of HTTP's digest.
const REALM: &str = "door";
const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";

/// What it is like.
#[derive(Debug, Clone)]
pub struct DeviceLike {
    pub user: Option<(String, String)>,
    /// How many milliseconds its clock is ahead.
    pub ahead_ms: i64,
    /// Where its streams are; a profile's token stands behind it.
    pub stream: String,
    /// It has the newer media service only.
    pub new: bool,
    /// It answers nothing, its time included, to who does not know the password by HTTP's digest.
    pub guarded: bool,
}

/// Ends with it.
pub struct TestDevice {
    address: SocketAddr,
    listens: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: [JoinHandle<()>; 2],
}

struct State {
    like: DeviceLike,
    asked: Vec<String>,
}

impl TestDevice {
    /// # Panics
    /// If it can't be started: a test can't go on without.
    #[expect(clippy::expect_used, reason = "a test's set-up: it must fail loudly")]
    pub async fn start(like: DeviceLike) -> Self {
        let web = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = web.local_addr().expect("an address");
        let listens = udp.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { like, asked: Vec::new() }));
        let served = state.clone();
        let tasks = [
            tokio::spawn(async move {
                while let Ok((stream, _)) = web.accept().await {
                    tokio::spawn(serve(stream, address, served.clone()));
                }
            }),
            tokio::spawn(answer_probes(udp, address)),
        ];
        Self { address, listens, state, tasks }
    }

    /// As a scenario's source.
    pub fn url(&self) -> String {
        format!("onvif://{}", self.address)
    }

    /// Where it is asked who is there.
    pub const fn listens(&self) -> SocketAddr {
        self.listens
    }

    /// From now on its streams are somewhere else.
    pub fn move_stream(&self, stream: String) {
        lock(&self.state).like.stream = stream;
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

impl Drop for TestDevice {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer_probes(socket: UdpSocket, address: SocketAddr) {
    let mut buffer = vec![0; 65_535];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        let Some(id) = between(&text, "MessageID>", "<") else { continue };
        let answer = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<env:Envelope xmlns:env=\"http://www.w3.org/2003/05/soap-envelope\" \
             xmlns:wsa=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
             xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\"><env:Header><wsa:RelatesTo>{id}</wsa:RelatesTo>\
             </env:Header><env:Body><d:ProbeMatches><d:ProbeMatch><wsa:EndpointReference>\
             <wsa:Address>urn:uuid:3fa1fe68-b915-4053-a3e1-{port:012}</wsa:Address></wsa:EndpointReference>\
             <d:Types>dn:NetworkVideoTransmitter tds:Device</d:Types>\
             <d:Scopes>onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/Front%20door \
             onvif://www.onvif.org/hardware/TEST-1</d:Scopes>\
             <d:XAddrs>http://192.0.2.1/onvif/device_service http://{address}/onvif/device_service</d:XAddrs>\
             <d:MetadataVersion>1</d:MetadataVersion></d:ProbeMatch></d:ProbeMatches></env:Body></env:Envelope>",
            port = address.port(),
        );
        let _ = socket.send_to(answer.as_bytes(), from).await;
    }
}

async fn serve(mut stream: TcpStream, address: SocketAddr, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    let request = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = between(&head, "content-length: ", "\r\n").or_else(|| head.split("content-length: ").nth(1));
            if length.and_then(|length| length.trim().parse().ok()).is_some_and(|length: usize| body.len() >= length) {
                break text;
            }
        }
    };
    let (status, body) = answer(&request, address, &state);
    let challenge = if status == 401 {
        format!(
            "WWW-Authenticate: Digest realm=\"{REALM}\", qop=\"auth,auth-int\", algorithm=SHA-256, nonce=\"{NONCE}\"\r\n"
        )
    } else {
        String::new()
    };
    let text = format!(
        "HTTP/1.1 {status} Answer\r\n{challenge}Content-Type: application/soap+xml; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

fn answer(request: &str, address: SocketAddr, state: &Mutex<State>) -> (u16, String) {
    let operation = between(request, "<s:Body><", " ").unwrap_or_default().to_owned();
    let mut state = lock(state);
    state.asked.push(operation.clone());
    let DeviceLike { user, ahead_ms, stream, new, guarded } = &state.like;
    let now = Timestamp::from_millis(Timestamp::now().as_millis() + ahead_ms);
    if let Some((name, password)) = user
        && *guarded
        && !knows_by_http(request, name, password)
    {
        return (401, String::new());
    }
    if operation == "GetSystemDateAndTime" {
        return (200, envelope(&date(now)));
    }
    if let Some((name, password)) = user
        && !knows(request, name, password, now)
    {
        let code = "<env:Code><env:Value>env:Sender</env:Value><env:Subcode><env:Value>ter:NotAuthorized</env:Value>\
                    </env:Subcode></env:Code><env:Reason><env:Text xml:lang=\"en\">Sender not Authorized</env:Text>\
                    </env:Reason>";
        return (400, envelope(&format!("<env:Fault>{code}</env:Fault>")));
    }
    let body = match operation.as_str() {
        // As an older one, it does not know the question.
        "GetServices" if !new => {
            let code = "<env:Code><env:Value>env:Receiver</env:Value><env:Subcode><env:Value>ter:ActionNotSupported\
                        </env:Value></env:Subcode></env:Code><env:Reason><env:Text xml:lang=\"en\">Optional Action Not \
                        Implemented</env:Text></env:Reason>";
            return (500, envelope(&format!("<env:Fault>{code}</env:Fault>")));
        }
        "GetServices" => format!(
            "<tds:GetServicesResponse><tds:Service><tds:Namespace>http://www.onvif.org/ver10/device/wsdl</tds:Namespace>\
             <tds:XAddr>http://{address}/onvif/device_service</tds:XAddr></tds:Service><tds:Service>\
             <tds:Namespace>http://www.onvif.org/ver20/media/wsdl</tds:Namespace>\
             <tds:XAddr>http://{address}/onvif/Media2</tds:XAddr></tds:Service></tds:GetServicesResponse>"
        ),
        "GetCapabilities" => format!(
            "<tds:GetCapabilitiesResponse><tds:Capabilities><tt:Media><tt:XAddr>http://{address}/onvif/Media</tt:XAddr>\
             </tt:Media></tds:Capabilities></tds:GetCapabilitiesResponse>"
        ),
        "GetProfiles" if *new => {
            let profile = |token: &str, codec: &str, width: u32, height: u32| {
                format!(
                    "<tr2:Profiles token=\"{token}\" fixed=\"true\"><tr2:Name>{token}Stream</tr2:Name><tr2:Configurations>\
                     <tr2:VideoEncoder token=\"e{token}\"><tt:Name>encoder</tt:Name><tt:Encoding>{codec}</tt:Encoding>\
                     <tt:Resolution><tt:Width>{width}</tt:Width><tt:Height>{height}</tt:Height></tt:Resolution>\
                     <tt:RateControl ConstantBitRate=\"false\"><tt:FrameRateLimit>25</tt:FrameRateLimit></tt:RateControl>\
                     </tr2:VideoEncoder></tr2:Configurations></tr2:Profiles>"
                )
            };
            let profiles = profile("best", "H265", 3840, 2160) + &profile("main", "H264", 1920, 1080);
            format!("<tr2:GetProfilesResponse>{profiles}</tr2:GetProfilesResponse>")
        }
        "GetProfiles" => {
            let profile = |token: &str, width: u32, height: u32, fps: u32| {
                format!(
                    "<trt:Profiles token=\"{token}\" fixed=\"true\"><tt:Name>{token}Stream</tt:Name>\
                     <tt:VideoSourceConfiguration token=\"v\"><tt:Name>source</tt:Name></tt:VideoSourceConfiguration>\
                     <tt:VideoEncoderConfiguration token=\"e{token}\"><tt:Name>encoder</tt:Name>\
                     <tt:Encoding>H264</tt:Encoding><tt:Resolution><tt:Width>{width}</tt:Width>\
                     <tt:Height>{height}</tt:Height></tt:Resolution><tt:RateControl><tt:FrameRateLimit>{fps}\
                     </tt:FrameRateLimit></tt:RateControl></tt:VideoEncoderConfiguration></trt:Profiles>"
                )
            };
            let profiles = profile("main", 1920, 1080, 25) + &profile("sub", 640, 360, 10);
            format!("<trt:GetProfilesResponse>{profiles}</trt:GetProfilesResponse>")
        }
        "GetStreamUri" => {
            let token = between(request, "<ProfileToken>", "<").unwrap_or_default();
            // Some write a password into it.
            let address = format!("{stream}?profile={token}").replacen("://", "://admin:written-in@", 1);
            if *new {
                format!("<tr2:GetStreamUriResponse><tr2:Uri>{address}</tr2:Uri></tr2:GetStreamUriResponse>")
            } else {
                format!(
                    "<trt:GetStreamUriResponse><trt:MediaUri><tt:Uri>{address}</tt:Uri>\
                     <tt:InvalidAfterConnect>false</tt:InvalidAfterConnect></trt:MediaUri></trt:GetStreamUriResponse>"
                )
            }
        }
        _ => return (404, String::new()),
    };
    (200, envelope(&body))
}

/// Whether the password was shown to be known, at this time.
fn knows(request: &str, name: &str, password: &str, now: Timestamp) -> bool {
    let part = |name: &str| {
        let tags = [format!("<wsse:{name}>"), format!("<wsse:{name} "), format!("<wsu:{name}>")];
        let start = tags.iter().find_map(|tag| request.find(tag))?;
        between(request.get(start..)?, ">", "<")
    };
    let shown = || {
        let created = part("Created")?;
        let time: Timestamp = created.parse().ok()?;
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(&BASE64.decode(part("Nonce")?).ok()?);
        context.update(created.as_bytes());
        context.update(password.as_bytes());
        let right = part("Username")? == name && part("Password")? == BASE64.encode(context.finish());
        Some(right && time.since(now) < TOLERANCE && now.since(time) < TOLERANCE)
    };
    shown().unwrap_or(false)
}

/// Whether the password was shown to be known by HTTP's digest (RFC 7616).
fn knows_by_http(request: &str, name: &str, password: &str) -> bool {
    let hash = |text: String| {
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let shown = || {
        let header = request.lines().find(|line| line.to_lowercase().starts_with("authorization: digest "))?;
        let part = |name: &str| {
            let value = header.split([' ', ',']).find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches('"'))
        };
        let path = request.split(' ').nth(1)?;
        let (quality, body) = (part("qop")?, request.split_once("\r\n\r\n")?.1);
        let asked = match quality {
            "auth-int" => format!("POST:{path}:{}", hash(body.to_owned())),
            _ => format!("POST:{path}"),
        };
        let (user, asked) = (hash(format!("{name}:{REALM}:{password}")), hash(asked));
        let right = hash(format!("{user}:{NONCE}:{}:{}:{quality}:{asked}", part("nc")?, part("cnonce")?));
        Some(part("username")? == name && part("uri")? == path && part("response")? == right)
    };
    shown().unwrap_or(false)
}

fn date(now: Timestamp) -> String {
    let time = OffsetDateTime::from_unix_timestamp(now.as_millis() / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>Manual</tt:DateTimeType>\
         <tt:UTCDateTime><tt:Time><tt:Hour>{}</tt:Hour><tt:Minute>{}</tt:Minute><tt:Second>{}</tt:Second></tt:Time>\
         <tt:Date><tt:Year>{}</tt:Year><tt:Month>{}</tt:Month><tt:Day>{}</tt:Day></tt:Date></tt:UTCDateTime>\
         </tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>",
        time.hour(),
        time.minute(),
        time.second(),
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<env:Envelope xmlns:env=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:tds=\"http://www.onvif.org/ver10/device/wsdl\" xmlns:trt=\"http://www.onvif.org/ver10/media/wsdl\" \
         xmlns:tr2=\"http://www.onvif.org/ver20/media/wsdl\" xmlns:tt=\"http://www.onvif.org/ver10/schema\" \
         xmlns:ter=\"http://www.onvif.org/ver10/error\"><env:Body>{body}</env:Body></env:Envelope>"
    )
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}
