//! One device: by its own clock, its profiles and the address of a stream.

use std::net::IpAddr;

use reqwest::Client;
use roxmltree::Node;
use time::{Date, Month};
use url::Url;

use super::{
    OnvifError, Profile,
    soap::{self, Credentials, Request},
    xml,
};
use crate::{geometry::Size, time::Timestamp};

const DEVICE: &str = "http://www.onvif.org/ver10/device/wsdl";
const MEDIA: &str = "http://www.onvif.org/ver10/media/wsdl";
const MEDIA2: &str = "http://www.onvif.org/ver20/media/wsdl";
const SCHEMA: &str = "http://www.onvif.org/ver10/schema";
/// More profiles are not looked at.
const MOST: usize = 64;

/// A device that has answered.
pub struct Device {
    client: Client,
    /// Of its device service.
    address: Url,
    credentials: Option<Credentials>,
    /// How many milliseconds its clock is ahead of this machine's, once it is asked. A device refuses who tells another time than
    /// its own.
    ahead_ms: Option<i64>,
}

/// Its service for streams, old or new.
struct Media {
    address: Url,
    namespace: &'static str,
}

impl Device {
    /// Asks a device at the address of its device service for its time.
    pub async fn open(address: Url, credentials: Option<Credentials>) -> Result<Self, OnvifError> {
        let mut device = Self { client: soap::client()?, address, credentials: None, ahead_ms: None };
        // It is for everybody: whoever doesn't know a device's time can't show it a password in an envelope.
        let ahead = match device.ahead().await {
            Ok(ahead) => Some(ahead),
            Err(OnvifError::NeedsCredentials | OnvifError::Fault(_)) => None,
            Err(error) => return Err(error),
        };
        device.credentials = credentials;
        let ahead = match ahead {
            Some(ahead) => ahead,
            // Some keep even that to those whom they know: HTTP's digest needs no clock.
            None if device.credentials.is_some() => match device.ahead().await {
                Err(error @ OnvifError::Silent { .. }) => return Err(error),
                ahead => ahead.unwrap_or(0),
            },
            None => 0,
        };
        device.ahead_ms = Some(ahead);
        Ok(device)
    }

    /// How many milliseconds its clock is ahead, 0 where it does not tell.
    async fn ahead(&self) -> Result<i64, OnvifError> {
        let answer = self.ask(&self.address, DEVICE, "GetSystemDateAndTime", "").await?;
        let now = Timestamp::now();
        Ok(time_in(&answer)?.map_or(0, |theirs| theirs.as_millis() - now.as_millis()))
    }

    /// What it can send.
    pub async fn profiles(&self) -> Result<Vec<Profile>, OnvifError> {
        let media = self.media().await?;
        let body = if media.namespace == MEDIA2 { "<Type>VideoEncoder</Type>" } else { "" };
        let answer = self.ask(&media.address, media.namespace, "GetProfiles", body).await?;
        let document = xml::parse(&answer)?;
        Ok(xml::all(document.root(), "Profiles").take(MOST).filter_map(profile).collect())
    }

    /// Where one of its profiles is sent from by RTSP. It never holds a user name or a password.
    pub async fn stream(&self, profile: &Profile) -> Result<Url, OnvifError> {
        let media = self.media().await?;
        let token = xml::escaped(&profile.token);
        let body = if media.namespace == MEDIA2 {
            format!("<Protocol>RTSP</Protocol><ProfileToken>{token}</ProfileToken>")
        } else {
            format!(
                "<StreamSetup><Stream xmlns=\"{SCHEMA}\">RTP-Unicast</Stream><Transport xmlns=\"{SCHEMA}\">\
                 <Protocol>RTSP</Protocol></Transport></StreamSetup><ProfileToken>{token}</ProfileToken>"
            )
        };
        let answer = self.ask(&media.address, media.namespace, "GetStreamUri", &body).await?;
        let document = xml::parse(&answer)?;
        let text = xml::text(document.root(), &["GetStreamUriResponse", "Uri"]);
        let unusable = || OnvifError::Answer("it names no address of a stream".to_owned());
        let mut url = Url::parse(text.ok_or_else(unusable)?).map_err(|_| unusable())?;
        if !matches!(url.scheme(), "rtsp" | "rtsps") || url.host_str().is_none_or(str::is_empty) {
            return Err(OnvifError::Answer("the stream's address is not one of RTSP (rtsp:// or rtsps://)".to_owned()));
        }
        // What some write into it is given apart.
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| unusable())?;
        Ok(reachable(url, &self.address))
    }

    async fn media(&self) -> Result<Media, OnvifError> {
        let body = "<IncludeCapability>false</IncludeCapability>";
        let found = match self.ask(&self.address, DEVICE, "GetServices", body).await {
            Ok(answer) => self.service(&answer)?,
            // Older ones do not know the question.
            Err(OnvifError::Fault(_) | OnvifError::Status(_)) => None,
            Err(error) => return Err(error),
        };
        if let Some(media) = found {
            return Ok(media);
        }
        let body = "<Category>Media</Category>";
        let answer = self.ask(&self.address, DEVICE, "GetCapabilities", body).await?;
        let document = xml::parse(&answer)?;
        let address = xml::text(document.root(), &["Capabilities", "Media", "XAddr"]);
        let address = address.and_then(|text| self.web(text));
        let none = || OnvifError::Answer("the device has no streams (no media service)".to_owned());
        Ok(Media { address: address.ok_or_else(none)?, namespace: MEDIA })
    }

    /// The media service in a list of services: the old one if it is there, which tells all that is asked here.
    fn service(&self, answer: &str) -> Result<Option<Media>, OnvifError> {
        let document = xml::parse(answer)?;
        let find = |namespace| {
            // Each is looked through: a hostile answer could nest thousands.
            let mut services = xml::all(document.root(), "Service").take(MOST);
            let service = services.find(|service| xml::text(*service, &["Namespace"]) == Some(namespace))?;
            Some(Media { address: self.web(xml::text(service, &["XAddr"])?)?, namespace })
        };
        Ok(find(MEDIA).or_else(|| find(MEDIA2)))
    }

    fn web(&self, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        Some(reachable(url, &self.address))
    }

    async fn ask(&self, service: &Url, namespace: &str, operation: &str, body: &str) -> Result<String, OnvifError> {
        let created =
            self.ahead_ms.map(|ahead| Timestamp::from_millis(Timestamp::now().as_millis() + ahead).to_string());
        let credentials = self.credentials.as_ref().map(|credentials| (credentials, created.as_deref()));
        soap::ask(&self.client, &Request { service, namespace, operation, body }, credentials).await
    }
}

/// An address that a device gives of itself as others can reach it: some name one that is only their own.
fn reachable(mut url: Url, device: &Url) -> Url {
    // Of addresses that are not of the web, hosts are texts.
    let ip = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    let own = ip.is_some_and(|ip| match ip {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
    });
    if own {
        // A host that was asked is one.
        let _ = url.set_host(device.host_str());
    }
    url
}

/// The time in a device's answer; none: it tells only its own zone's.
fn time_in(answer: &str) -> Result<Option<Timestamp>, OnvifError> {
    let document = xml::parse(answer)?;
    let Some(time) = xml::find(document.root(), "UTCDateTime") else { return Ok(None) };
    let number = |path: &[&str]| xml::text(time, path).and_then(|text| text.parse::<u16>().ok());
    let byte = |path: &[&str]| number(path).and_then(|number| u8::try_from(number).ok());
    let moment = || {
        let month = Month::try_from(byte(&["Date", "Month"])?).ok()?;
        let date = Date::from_calendar_date(number(&["Date", "Year"])?.into(), month, byte(&["Date", "Day"])?).ok()?;
        let (hour, minute) = (byte(&["Time", "Hour"])?, byte(&["Time", "Minute"])?);
        // A leap second is the one before it.
        let second = byte(&["Time", "Second"])?.min(59);
        Some(Timestamp::from(date.with_hms(hour, minute, second).ok()?.assume_utc()))
    };
    Ok(moment())
}

fn profile(node: Node<'_, '_>) -> Option<Profile> {
    let token = node.attribute("token")?.to_owned();
    let name = xml::text(node, &["Name"]).unwrap_or(&token).to_owned();
    let video = xml::find(node, "VideoEncoderConfiguration").or_else(|| xml::find(node, "VideoEncoder"));
    let text = |path: &[&str]| video.and_then(|video| xml::text(video, path));
    let side = |name| text(&["Resolution", name]).and_then(|text| text.parse::<u32>().ok()).filter(|side| *side > 0);
    let size = side("Width").zip(side("Height")).map(|(width, height)| Size { width, height });
    let fps = text(&["RateControl", "FrameRateLimit"]).and_then(|text| text.parse::<f64>().ok());
    let codec = text(&["Encoding"]).map(|codec| codec.chars().take(20).collect());
    Some(Profile { token, name, codec, size, fps: fps.filter(|fps| fps.is_finite() && *fps > 0.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_old_and_new_devices_are_read() {
        let old = r#"<s:Envelope xmlns:s="e" xmlns:trt="m" xmlns:tt="t"><s:Body><trt:GetProfilesResponse>
            <trt:Profiles token="Profile_1" fixed="true"><tt:Name>mainStream</tt:Name>
            <tt:VideoSourceConfiguration token="v"><tt:Name>VideoSourceConfig</tt:Name></tt:VideoSourceConfiguration>
            <tt:VideoEncoderConfiguration token="e"><tt:Name>VideoEncoder_1</tt:Name><tt:Encoding>H264</tt:Encoding>
            <tt:Resolution><tt:Width>1920</tt:Width><tt:Height>1080</tt:Height></tt:Resolution>
            <tt:RateControl><tt:FrameRateLimit>25</tt:FrameRateLimit></tt:RateControl></tt:VideoEncoderConfiguration>
            </trt:Profiles><trt:Profiles token="audio"><tt:Name>sound</tt:Name></trt:Profiles>
            </trt:GetProfilesResponse></s:Body></s:Envelope>"#;
        let new = r#"<Envelope><Body><GetProfilesResponse><Profiles token="p2"><Name>Second</Name><Configurations>
            <VideoSource token="v"><Name>x</Name></VideoSource><VideoEncoder token="e"><Encoding>H265</Encoding>
            <Resolution><Width>3840</Width><Height>2160</Height></Resolution>
            <RateControl ConstantBitRate="true"><FrameRateLimit>12.5</FrameRateLimit></RateControl></VideoEncoder>
            </Configurations></Profiles></GetProfilesResponse></Body></Envelope>"#;
        let read = |text| {
            let document = xml::parse(text).unwrap();
            xml::all(document.root(), "Profiles").filter_map(profile).collect::<Vec<_>>()
        };
        let shown = |p: &Profile| {
            (p.token.clone(), p.name.clone(), p.codec.clone(), p.size.map(|size| size.to_string()), p.fps)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            shown(&read(old)[0]),
            ("Profile_1".into(), "mainStream".into(), text("H264"), text("1920x1080"), Some(25.0))
        );
        assert_eq!(shown(&read(old)[1]), ("audio".into(), "sound".into(), None, None, None));
        assert_eq!(shown(&read(new)[0]), ("p2".into(), "Second".into(), text("H265"), text("3840x2160"), Some(12.5)));
    }

    #[test]
    fn a_devices_time_is_read_and_nonsense_is_none() {
        let answer = |hour: &str| {
            format!(
                "<a><UTCDateTime><Time><Hour>{hour}</Hour><Minute>59</Minute><Second>60</Second></Time>\
                 <Date><Year>2026</Year><Month>1</Month><Day>31</Day></Date></UTCDateTime></a>"
            )
        };
        let time = time_in(&answer("12")).unwrap().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T12:59:59.000Z");
        assert_eq!(time_in(&answer("25")).unwrap(), None);
        assert_eq!(time_in("<a/>").unwrap(), None);
    }

    #[test]
    fn an_address_that_only_the_device_can_reach_is_brought_to_the_one_that_was_asked() {
        let device = Url::parse("http://10.0.0.7:8080/onvif/device_service").unwrap();
        for (given, wanted) in [
            ("rtsp://127.0.0.1:554/1", "rtsp://10.0.0.7:554/1"),
            ("rtsp://0.0.0.0/1", "rtsp://10.0.0.7/1"),
            ("rtsp://169.254.1.2/1", "rtsp://10.0.0.7/1"),
            ("rtsp://10.0.0.8/1?a=b", "rtsp://10.0.0.8/1?a=b"),
            ("rtsp://cam.example/1", "rtsp://cam.example/1"),
        ] {
            assert_eq!(reachable(Url::parse(given).unwrap(), &device).as_str(), wanted);
        }
    }
}
