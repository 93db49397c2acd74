//! Devices of the network as they are shown.

use kadr_shared::onvif;
use poem_openapi::Object;
use serde::Serialize;

/// Cameras that answered.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
pub(crate) struct Devices {
    pub(crate) devices: Vec<DeviceBody>,
}

/// An ONVIF device.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Device")]
pub(crate) struct DeviceBody {
    /// The address to give as a scenario's `source.url`.
    url: String,
    /// What it calls itself.
    name: Option<String>,
    /// What it is.
    hardware: Option<String>,
    /// What it can send; null: it does not tell, and `error` says why.
    profiles: Option<Vec<ProfileBody>>,
    error: Option<String>,
}

/// One of a device's streams.
#[derive(Debug, Clone, PartialEq, Serialize, Object)]
#[oai(rename = "Profile")]
struct ProfileBody {
    /// To be given as `source.profile`.
    token: String,
    name: String,
    /// `H264` can be read; null: it has no video.
    codec: Option<String>,
    size: Option<String>,
    /// The most frames a second.
    fps: Option<f64>,
}

impl From<onvif::Found> for DeviceBody {
    fn from(found: onvif::Found) -> Self {
        let url = found.source();
        let onvif::Found { name, hardware, profiles, .. } = found;
        let (profiles, error) = match profiles {
            Ok(profiles) => (Some(profiles.into_iter().map(ProfileBody::from).collect()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { url, name, hardware, profiles, error }
    }
}

impl From<onvif::Profile> for ProfileBody {
    fn from(onvif::Profile { token, name, codec, size, fps }: onvif::Profile) -> Self {
        Self { token, name, codec, size: size.map(|size| size.to_string()), fps }
    }
}
