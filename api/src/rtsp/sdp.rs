//! What is told of a video before it is played (SDP, RFC 8866; H.264's part by RFC 6184, section 8.2.1).

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use kadr_shared::{id::ScenarioId, message::video::AccessUnit};

use super::rtp::{CLOCK, PAYLOAD_TYPE};

/// The video's own address, behind the scenario's.
pub(super) const TRACK: &str = "track0";

/// A scenario's video, as its first picture tells it; `host` is where the player finds this server. `None` if that picture
/// brings no parameter sets.
pub(super) fn describe(scenario: &ScenarioId, first: &AccessUnit, host: IpAddr) -> Option<String> {
    let (sps, pps) = first.parameter_sets()?;
    let [profile, constraints, level] = *sps.get(1..)?.first_chunk::<3>()?;
    let family = if host.is_ipv4() { "IP4" } else { "IP6" };
    let any = if host.is_ipv4() { "0.0.0.0" } else { "::" };
    let (stream, version) = (first.stream, env!("CARGO_PKG_VERSION"));
    let [sps, pps] = [sps, pps].map(|set| STANDARD.encode(set));
    let lines = [
        "v=0".to_owned(),
        format!("o=- {stream} 1 IN {family} {host}"),
        format!("s={scenario}"),
        format!("c=IN {family} {any}"),
        "t=0 0".to_owned(),
        format!("a=tool:kadr {version}"),
        "a=range:npt=now-".to_owned(),
        "a=control:*".to_owned(),
        format!("m=video 0 RTP/AVP {PAYLOAD_TYPE}"),
        format!("a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK}"),
        format!(
            "a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;\
             profile-level-id={profile:02X}{constraints:02X}{level:02X};sprop-parameter-sets={sps},{pps}"
        ),
        format!("a=control:{TRACK}"),
    ];
    Some(lines.join("\r\n") + "\r\n")
}

#[cfg(test)]
mod tests {
    use super::{super::testing::key_frame, *};

    #[test]
    fn it_tells_how_the_video_is_coded() {
        let told = describe(&"gate".parse().unwrap(), &key_frame(&[]), [127, 0, 0, 1].into()).unwrap();
        assert_eq!(
            told.split("\r\n").collect::<Vec<_>>(),
            [
                "v=0",
                "o=- 7 1 IN IP4 127.0.0.1",
                "s=gate",
                "c=IN IP4 0.0.0.0",
                "t=0 0",
                concat!("a=tool:kadr ", env!("CARGO_PKG_VERSION")),
                "a=range:npt=now-",
                "a=control:*",
                "m=video 0 RTP/AVP 96",
                "a=rtpmap:96 H264/90000",
                "a=fmtp:96 packetization-mode=1;profile-level-id=42C01F;sprop-parameter-sets=Z0LAHwE=,aM4=",
                "a=control:track0",
                ""
            ]
        );
        let other = AccessUnit { body: Default::default(), ..key_frame(&[]) };
        assert_eq!(describe(&"gate".parse().unwrap(), &other, [127, 0, 0, 1].into()), None);
    }
}
