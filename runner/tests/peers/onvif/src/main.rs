//! oxvif's ONVIF device, on a free port of this machine, until its standard input ends: prints its address. `--password`: for
//! those who know it only (admin, admin).

use oxvif::mock::MockServer;
use tokio::io::{AsyncReadExt, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let password = std::env::args().any(|argument| argument == "--password");
    let server = MockServer::builder().enforce_auth(password).start().await?;
    println!("{}", server.device_url());
    // Whoever started it holds the other end.
    stdin().read_to_end(&mut Vec::new()).await?;
    server.shutdown().await
}
