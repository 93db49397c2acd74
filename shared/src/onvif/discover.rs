//! Who is there: WS-Discovery, by multicast on every network of this machine or to one host.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use tokio::{
    net::{UdpSocket, lookup_host},
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::debug;
use url::Url;
use uuid::Uuid;

use super::{Credentials, Device, OnvifError, Profile, xml};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// Where devices are asked for what they are.
const PATH: &str = "/onvif/device_service";
/// Where devices listen for the question.
const PORT: u16 = 3702;
/// The question is asked once more after this time: it may get lost.
const AGAIN: Duration = Duration::from_millis(300);
/// More devices are not listed.
const MOST: usize = 64;
/// More answers are not read.
const MOST_ANSWERS: usize = 1024;
/// Devices that are asked for their profiles at a time.
const AT_A_TIME: usize = 16;
/// For the name of a host.
const LOOK_UP: Duration = Duration::from_secs(2);

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Search {
    /// Ask this host only, `host` or `host:port` (of its web server); none: all networks of this machine.
    pub host: Option<String>,
    /// How long answers are waited for.
    pub wait: Duration,
    /// For devices' profiles.
    pub credentials: Option<Credentials>,
    /// Devices that have not told their profiles by then have not.
    pub patience: Duration,
    /// Where devices listen. It is 3702 in the world.
    pub port: u16,
}

impl Default for Search {
    fn default() -> Self {
        let [wait, patience] = [2, 5].map(Duration::from_secs);
        Self { host: None, wait, credentials: None, patience, port: PORT }
    }
}

/// A device that has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Where it is asked.
    pub address: Url,
    /// What it calls itself, and what it is.
    pub name: Option<String>,
    pub hardware: Option<String>,
    /// What it can send, or why it does not tell.
    pub profiles: Result<Vec<Profile>, OnvifError>,
}

impl Found {
    /// The address to be given as a scenario's source.
    pub fn source(&self) -> String {
        let host = self.address.host_str().unwrap_or_default();
        let port = self.address.port().map_or_else(String::new, |port| format!(":{port}"));
        let path = if self.address.path() == PATH { "" } else { self.address.path() };
        format!("onvif://{host}{port}{path}")
    }
}

/// It could not be looked at all.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    #[error("that is no host: write a name or an address, and its web server's port behind a colon if it is not 80")]
    Host,
    #[error("the host {0} is not known")]
    Unknown(String),
    #[error("this machine's networks can't be used")]
    Network(#[source] io::Error),
}

/// A device, as its answer to the question says it.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    address: Url,
    name: Option<String>,
    hardware: Option<String>,
}

/// Looks for devices, and asks each for its profiles. Ordered by their addresses.
pub async fn discover(search: &Search) -> Result<Vec<Found>, DiscoverError> {
    // For all of it: what a device has not told by then it is too slow for.
    let end = Instant::now() + search.wait + search.patience;
    let mut answers = match &search.host {
        Some(host) => ask_host(search, host, end - search.patience / 2).await?,
        None => ask_all(search).await?,
    };
    answers.truncate(MOST);
    let found = answers.into_iter().map(|answer| async {
        let Answer { address, name, hardware } = answer;
        let profiles = async { Device::open(address.clone(), search.credentials.clone()).await?.profiles().await };
        let late = || Err(OnvifError::Silent { address: address.host_str().unwrap_or_default().to_owned() });
        let profiles = timeout_at(end, profiles).await.unwrap_or_else(|_| late());
        Found { address, name, hardware, profiles }
    });
    Ok(stream::iter(found).buffered(AT_A_TIME).collect().await)
}

async fn ask_host(search: &Search, host: &str, end: Instant) -> Result<Vec<Answer>, DiscoverError> {
    if host.is_empty() {
        return Err(DiscoverError::Host);
    }
    let web = Url::parse(&format!("http://{host}{PATH}")).map_err(|_| DiscoverError::Host)?;
    // Nothing but a host and a port.
    let plain = !host.starts_with(['/', '\\']) && web.username().is_empty() && web.path() == PATH;
    let name = web.host_str().filter(|name| plain && !name.is_empty()).ok_or(DiscoverError::Host)?;
    let bare = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let unknown = || DiscoverError::Unknown(bare.clone());
    let addresses = timeout(LOOK_UP, lookup_host((bare.as_str(), search.port))).await.map_err(|_| unknown())?;
    let target = addresses.map_err(|_| unknown())?.next().ok_or_else(unknown)?;
    let from = if target.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let answers = ask(from, target, search.wait, true).await.map_err(DiscoverError::Network)?;
    if !answers.is_empty() {
        return Ok(merged(answers));
    }
    // It may answer on the web only, or the question does not get through.
    match timeout_at(end, Device::open(web.clone(), None)).await {
        Ok(Ok(_)) => Ok(vec![Answer { address: web, name: None, hardware: None }]),
        Ok(Err(error)) => {
            debug!(%error, "no device at the host's web server");
            Ok(Vec::new())
        }
        Err(_) => Ok(Vec::new()),
    }
}

async fn ask_all(search: &Search) -> Result<Vec<Answer>, DiscoverError> {
    let interfaces = if_addrs::get_if_addrs().map_err(DiscoverError::Network)?;
    let own = interfaces.iter().filter(|interface| !interface.is_loopback()).map(if_addrs::Interface::ip);
    let mut own: Vec<IpAddr> = own.filter(IpAddr::is_ipv4).collect();
    own.sort_unstable();
    own.dedup();
    if own.is_empty() {
        own.push(Ipv4Addr::UNSPECIFIED.into());
    }
    // A socket that is bound to an address asks by that network.
    let asked = own.iter().map(|from| ask(*from, (GROUP, search.port).into(), search.wait, false));
    let mut answers = Vec::new();
    let mut failure = None;
    for asked in join_all(asked).await {
        match asked {
            Ok(found) => answers.extend(found),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if answers.is_empty() => Err(DiscoverError::Network(error)),
        _ => Ok(merged(answers)),
    }
}

/// Asks from one address of this machine, and gathers answers by the endpoints that they name. `early`: the first answer
/// suffices.
async fn ask(from: IpAddr, target: SocketAddr, wait: Duration, early: bool) -> io::Result<BTreeMap<String, Answer>> {
    let socket = UdpSocket::bind((from, 0)).await?;
    let send = async || {
        for kind in ["dn:NetworkVideoTransmitter", "tds:Device"] {
            socket.send_to(question(kind).as_bytes(), target).await?;
        }
        io::Result::Ok(())
    };
    send().await?;
    let end = Instant::now() + wait;
    let mut answers = BTreeMap::new();
    let mut buffer = vec![0; 65_535];
    let mut again = Box::pin(sleep(AGAIN));
    let mut asked_again = false;
    for _ in 0..MOST_ANSWERS {
        let received = tokio::select! {
            () = &mut again, if !asked_again => {
                asked_again = true;
                send().await?;
                continue;
            }
            received = timeout_at(end, socket.recv_from(&mut buffer)) => received,
        };
        match received {
            Ok(Ok((length, sender))) => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                answers.extend(matches(&text, sender.ip()));
                if early && !answers.is_empty() {
                    break;
                }
            }
            // That nobody listens there; somebody else's answer may still come.
            Ok(Err(error)) => debug!(%error, "an answer could not be received"),
            Err(_) => break,
        }
    }
    Ok(answers)
}

/// One a device, by its address.
fn merged(answers: impl IntoIterator<Item = (String, Answer)>) -> Vec<Answer> {
    let by_endpoint: BTreeMap<String, Answer> = answers.into_iter().collect();
    let mut all: Vec<_> = by_endpoint.into_values().collect();
    all.sort_by(|a, b| a.address.as_str().cmp(b.address.as_str()));
    all.dedup_by(|a, b| a.address == b.address);
    all
}

fn question(kind: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\" \
         xmlns:dn=\"http://www.onvif.org/ver10/network/wsdl\" xmlns:tds=\"http://www.onvif.org/ver10/device/wsdl\">\
         <s:Header><a:Action s:mustUnderstand=\"1\">http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>\
         <a:MessageID>uuid:{}</a:MessageID><a:ReplyTo>\
         <a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
         <a:To s:mustUnderstand=\"1\">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></s:Header>\
         <s:Body><d:Probe><d:Types>{kind}</d:Types></d:Probe></s:Body></s:Envelope>",
        Uuid::new_v4()
    )
}

/// The devices that an answer names, by their endpoints.
fn matches(text: &str, sender: IpAddr) -> Vec<(String, Answer)> {
    let Ok(document) = xml::parse(text) else { return Vec::new() };
    let found = xml::all(document.root(), "ProbeMatch").filter_map(|found| {
        let addresses = xml::text(found, &["XAddrs"])?.split_whitespace();
        let addresses = addresses.filter_map(|text| Url::parse(text).ok());
        let web: Vec<_> = addresses.filter(|url| matches!(url.scheme(), "http" | "https")).collect();
        // The one that the answer came from is the one that can be reached.
        let sent = sender.to_string();
        let its_own = web.iter().find(|url| url.host_str().is_some_and(|host| host.trim_matches(['[', ']']) == sent));
        let address = its_own.or(web.first())?.clone();
        let endpoint = xml::text(found, &["EndpointReference", "Address"]).unwrap_or(address.as_str()).to_owned();
        let scopes = xml::text(found, &["Scopes"]).unwrap_or_default();
        Some((endpoint, Answer { name: scope(scopes, "name"), hardware: scope(scopes, "hardware"), address }))
    });
    found.take(MOST).collect()
}

/// What a device says of itself, as in `onvif://www.onvif.org/name/Front%20door`.
fn scope(scopes: &str, kind: &str) -> Option<String> {
    let start = format!("onvif://www.onvif.org/{kind}/");
    let text = scopes.split_whitespace().find_map(|scope| scope.strip_prefix(&start))?;
    let query = format!("x={}", text.replace('+', "%2B").replace('&', "%26").replace('#', "%23"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned());
    decoded.map(|text| text.chars().filter(|letter| !letter.is_control()).take(100).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_devices_with_what_they_say_of_themselves() {
        let text = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:d="d" xmlns:a="a"><s:Body>
            <d:ProbeMatches><d:ProbeMatch><a:EndpointReference><a:Address>urn:uuid:1</a:Address></a:EndpointReference>
            <d:Types>dn:NetworkVideoTransmitter</d:Types>
            <d:Scopes>onvif://www.onvif.org/name/Front%20door+1 onvif://www.onvif.org/hardware/DS-2CD onvif://x/y</d:Scopes>
            <d:XAddrs>http://192.168.1.64/onvif/device_service http://10.0.0.7:8080/onvif/device_service http://[fe80::1]/</d:XAddrs>
            </d:ProbeMatch><d:ProbeMatch><d:XAddrs>nonsense</d:XAddrs></d:ProbeMatch></d:ProbeMatches></s:Body>
            </s:Envelope>"#;
        let found = matches(text, "10.0.0.7".parse().unwrap());
        let [(endpoint, answer)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(endpoint, "urn:uuid:1");
        assert_eq!(answer.address.as_str(), "http://10.0.0.7:8080/onvif/device_service");
        assert_eq!(answer.name.as_deref(), Some("Front door+1"));
        assert_eq!(answer.hardware.as_deref(), Some("DS-2CD"));
        assert!(matches("<a><b>", "10.0.0.7".parse().unwrap()).is_empty());
    }
}
