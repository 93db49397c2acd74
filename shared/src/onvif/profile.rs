//! What a device can send, and choosing of it. Pure.

use crate::geometry::Size;

/// One of a device's streams.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// How the device calls it.
    pub token: String,
    /// How people do.
    pub name: String,
    /// `H264`, `H265`, `JPEG`, …; none: it has no video.
    pub codec: Option<String>,
    pub size: Option<Size>,
    /// The most frames a second.
    pub fps: Option<f64>,
}

/// Which of a device's streams is wanted. By default the largest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    pub size: Option<Size>,
    pub fps: Option<f64>,
    /// A profile's token or name: this one and no other.
    pub profile: Option<String>,
}

/// A device that has no stream that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    #[error("the device has no profile {wanted:?}: it has {}", list(found))]
    Unknown { wanted: String, found: Vec<String> },
    #[error("the device's profile {name:?} sends {codec}, kadr decodes H.264 only: choose another one, or H.264 in it")]
    Codec { name: String, codec: String },
    #[error("the device has no stream with H.264: it has {}", list(found))]
    NoH264 { found: Vec<String> },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(", ") }
}

impl Profile {
    fn is_h264(&self) -> bool {
        self.codec.as_deref().is_some_and(|codec| codec.eq_ignore_ascii_case("h264"))
    }

    /// For people.
    fn shown(&self) -> String {
        let size = self.size.map_or_else(String::new, |size| format!(" {size}"));
        format!("{} ({}{size})", self.name, self.codec.as_deref().unwrap_or("no video"))
    }
}

impl Wish {
    /// The profile that comes nearest. Of those with H.264: the one nearest in size, then in frames a second; without a
    /// wish the largest, then the quickest; of equals the first.
    pub fn choose<'a>(&self, profiles: &'a [Profile]) -> Result<&'a Profile, NoProfile> {
        let found = || profiles.iter().map(Profile::shown).collect();
        if let Some(wanted) = &self.profile {
            let by_token = profiles.iter().find(|profile| profile.token == *wanted);
            let profile = by_token.or_else(|| profiles.iter().find(|profile| profile.name == *wanted));
            let profile = profile.ok_or_else(|| NoProfile::Unknown { wanted: wanted.clone(), found: found() })?;
            if !profile.is_h264() {
                let codec = profile.codec.clone().unwrap_or_else(|| "no video".to_owned());
                return Err(NoProfile::Codec { name: profile.name.clone(), codec });
            }
            return Ok(profile);
        }
        let area = |size: Size| f64::from(size.width) * f64::from(size.height);
        // How far it is from what is wanted: smaller is better.
        let distance = |profile: &Profile| {
            let has = profile.size.map_or(0.0, area);
            let by_size = match self.size {
                Some(wanted) if has > 0.0 => (has / area(wanted)).ln().abs(),
                Some(_) => f64::INFINITY,
                None => -has,
            };
            let by_fps = match (self.fps, profile.fps) {
                (Some(wanted), Some(fps)) => (fps - wanted).abs(),
                (Some(_), None) => f64::INFINITY,
                (None, fps) => -fps.unwrap_or(0.0),
            };
            // Without a wish for a size but one for a rate, the rate comes first.
            if self.size.is_none() && self.fps.is_some() { [by_fps, by_size] } else { [by_size, by_fps] }
        };
        let less = |a: [f64; 2], b: [f64; 2]| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]));
        let candidates = profiles.iter().filter(|profile| profile.is_h264());
        candidates.min_by(|a, b| less(distance(a), distance(b))).ok_or_else(|| NoProfile::NoH264 { found: found() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(token: &str, codec: &str, size: (u32, u32), fps: f64) -> Profile {
        let (width, height) = size;
        Profile {
            token: token.into(),
            name: format!("{token} stream"),
            codec: Some(codec.into()),
            size: Some(Size { width, height }),
            fps: Some(fps),
        }
    }

    fn camera() -> Vec<Profile> {
        vec![
            profile("mjpeg", "JPEG", (3840, 2160), 30.0),
            profile("sub", "H264", (640, 360), 15.0),
            profile("main", "H264", (1920, 1080), 25.0),
            profile("quick", "H264", (1280, 720), 50.0),
            profile("new", "H265", (3840, 2160), 30.0),
        ]
    }

    fn chosen(wish: Wish) -> String {
        wish.choose(&camera()).unwrap().token.clone()
    }

    #[test]
    fn the_nearest_is_chosen_and_only_h264() {
        let size = |width, height| Some(Size { width, height });
        assert_eq!(chosen(Wish::default()), "main");
        assert_eq!(chosen(Wish { size: size(640, 480), ..Wish::default() }), "sub");
        assert_eq!(chosen(Wish { size: size(1280, 720), ..Wish::default() }), "quick");
        assert_eq!(chosen(Wish { size: size(4000, 3000), ..Wish::default() }), "main");
        assert_eq!(chosen(Wish { fps: Some(14.0), ..Wish::default() }), "sub");
        assert_eq!(chosen(Wish { profile: Some("sub stream".into()), ..Wish::default() }), "sub");
        assert_eq!(chosen(Wish { profile: Some("quick".into()), size: size(1, 1), ..Wish::default() }), "quick");
    }

    #[test]
    fn what_there_is_not_is_told_with_what_there_is() {
        let camera = camera();
        let choose =
            |profile: &str| Wish { profile: Some(profile.into()), ..Wish::default() }.choose(&camera).unwrap_err();
        let error = choose("other").to_string();
        assert!(error.contains("\"other\"") && error.contains("sub stream (H264 640x360)"), "{error}");
        assert!(choose("new").to_string().contains("H265"));
        let none = Wish::default().choose(&camera[..1]).unwrap_err();
        assert!(matches!(none, NoProfile::NoH264 { .. }), "{none}");
    }
}
