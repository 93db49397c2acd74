//! ONVIF devices: finding them on the network, and asking one for its streams.
//!
//! Only what leads to a stream's address is spoken of it: no events, no turning of heads. A device is somebody else's and
//! may say anything: answers are bounded, waited for with deadlines, and never trusted with a password in the clear.
//!
//! | module | |
//! |---|---|
//! | `discover` | who is there (WS-Discovery) |
//! | `device` | one device: its clock, its profiles, a stream's address |
//! | `profile` | profiles, and choosing one |
//! | `soap`, `security`, `xml` | a request and its answer |

mod device;
mod discover;
mod profile;
mod security;
mod soap;
mod xml;

pub use self::{
    device::Device,
    discover::{DiscoverError, Found, Search, discover},
    profile::{NoProfile, Profile, Wish},
    soap::{Credentials, OnvifError},
};
