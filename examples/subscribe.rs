//! Prints a scenario's detections as they are stored. It needs NATS and nothing of kadr:
//!
//!     cargo run --example subscribe -- nats://127.0.0.1:4222 gate

use futures::StreamExt;
use serde_json::Value;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, scenario] = arguments.as_slice() else {
        return Err("usage: subscribe NATS-URL SCENARIO (`kadr up` prints its NATS address)".into());
    };
    let nats = async_nats::connect(url).await?;
    // What is stored in the stream KADR_DETECTIONS is published first: a plain subscription sees it, live and only live.
    let mut results = nats.subscribe(format!("kadr.det.{scenario}")).await?;
    nats.flush().await?;
    eprintln!("waiting for {scenario}");
    while let Some(message) = results.next().await {
        let result: Value = serde_json::from_slice(&message.payload)?;
        let objects: Vec<String> = result["detections"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|d| format!("{} {} {}", d["label"].as_str().unwrap_or("?"), d["confidence"], d["box"]))
            .collect();
        println!("frame {} at {} ms: {}", result["frame"], result["pts_ms"], objects.join(", "));
    }
    Ok(())
}
