//! `kadr discover`: cameras on this machine's networks. The API looks on its own (`GET /v1/discover`).

use std::time::Duration;

use anyhow::Result;
use kadr_shared::onvif::{self, Credentials, Found, Profile, Search};
use serde_json::{Value, json};

use super::scenario::first_line;
use crate::{args::DiscoverArgs, print};

pub async fn run(args: DiscoverArgs) -> Result<()> {
    let password = args.password_file.as_deref().map(first_line).transpose()?.unwrap_or_default();
    let credentials = args.username.map(|username| Credentials { username, password });
    let wait = Duration::from_secs(args.wait.into());
    let found = onvif::discover(&Search { host: args.host, wait, credentials, ..Search::default() }).await?;
    if args.json {
        return print::json(&json!({ "devices": found.iter().map(device).collect::<Vec<_>>() }));
    }
    if found.is_empty() {
        println!(
            "no device has answered: see that it is on, on the same network, and has ONVIF switched on (--host asks one)"
        );
        return Ok(());
    }
    let mut table = print::table(["source", "device", "profile", "codec", "size", "fps"]);
    for device in found {
        let (source, name) = (device.source(), name(&device));
        match device.profiles {
            Ok(profiles) if profiles.is_empty() => {
                table.add_row([source, name, "has no streams".into(), String::new(), String::new(), String::new()]);
            }
            Ok(profiles) => {
                for Profile { token, codec, size, fps, .. } in profiles {
                    let size = size.map_or_else(String::new, |size| size.to_string());
                    let fps = fps.map_or_else(String::new, |fps| fps.to_string());
                    table.add_row([source.clone(), name.clone(), token, codec.unwrap_or_default(), size, fps]);
                }
            }
            Err(error) => {
                table.add_row([source, name, error.to_string(), String::new(), String::new(), String::new()]);
            }
        }
    }
    println!("{table}");
    Ok(())
}

fn name(found: &Found) -> String {
    let parts = [found.name.as_deref(), found.hardware.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// As the API shows it.
fn device(found: &Found) -> Value {
    let profile = |profile: &Profile| {
        json!({
            "token": profile.token, "name": profile.name, "codec": profile.codec,
            "size": profile.size, "fps": profile.fps,
        })
    };
    let profiles = found.profiles.as_ref().ok().map(|all| all.iter().map(profile).collect::<Vec<_>>());
    let error = found.profiles.as_ref().err().map(ToString::to_string);
    json!({
        "url": found.source(), "name": found.name, "hardware": found.hardware, "profiles": profiles, "error": error,
    })
}
