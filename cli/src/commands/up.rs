//! `kadr up`: the living system on this machine.

use crate::{args::ServiceArgs, commands::Failure, config::Config, signals, system::System};

pub async fn run(args: &ServiceArgs) -> Result<(), Failure> {
    let config = Config::load(args).map_err(Failure::unusable)?;
    let stop = signals::first_signal()?;
    let mut system = tokio::select! {
        // Before everything is up there is nothing to lose: what was started ends with this process.
        () = stop.cancelled() => return Ok(()),
        system = System::start(&config) => system.map_err(Failure::unusable)?,
    };
    println!("kadr is up, until Ctrl-C");
    println!("  REST      http://{}/v1/scenarios", system.api());
    println!("  OpenAPI   http://{}/docs", system.api());
    if let Some(address) = system.rtsp() {
        println!("  RTSP      rtsp://{address}/{{id}}");
    }
    println!("  NATS      {}", kadr_shared::nats::redacted(system.nats_url()));
    println!("  data      {}", config.data.display());
    println!("try: kadr scenario create gate --source /path/to/clip.mp4 && kadr scenario start gate");
    let broken = tokio::select! {
        () = stop.cancelled() => None,
        error = system.broken() => Some(error),
    };
    if broken.is_none() {
        println!("stopping (Ctrl-C again ends at once)");
    }
    system.stop().await;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
