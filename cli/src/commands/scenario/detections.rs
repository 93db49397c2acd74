//! `kadr scenario detections`: stored results as lines, page by page or as they come.

use std::{io::Write, time::Duration};

use anyhow::{Context, Result, bail};
use kadr_shared::{csv, message::detection::FrameDetections};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{DetectionsArgs, TextFormatArg},
    client::{Client, sse},
    signals,
};

/// Results asked for at once.
const PAGE: u32 = 1000;
/// After a stream has ended it is asked for again after this time.
const RETRY: Duration = Duration::from_secs(1);

impl TextFormatArg {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

pub async fn run(args: DetectionsArgs) -> Result<()> {
    let client = Client::new(&args.api)?;
    let done = if args.follow { follow(&client, &args).await } else { stored(&client, &args).await };
    match done {
        // Whoever read it has read enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What is wanted, as a query.
fn wanted(args: &DetectionsArgs) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    if !args.class.is_empty() {
        query.push(("class", args.class.join(",")));
    }
    query.extend(args.confidence.map(|confidence| ("confidence", confidence.to_string())));
    query.extend(args.rate.map(|rate| ("rate", rate.to_string())));
    query
}

async fn stored(client: &Client, args: &DetectionsArgs) -> Result<()> {
    let mut query = wanted(args);
    query.extend([("format", args.format.name().to_owned()), ("limit", PAGE.to_string())]);
    let mut next = args.from;
    let mut first = true;
    loop {
        let mut page_query = query.clone();
        page_query.extend(next.map(|from| ("from", from.to_string())));
        let page = client.detections(&args.scenario, &page_query).await?;
        let lines = if first { &page.lines } else { page.lines.strip_prefix(csv::HEADER).unwrap_or(&page.lines) };
        print(lines)?;
        if page.next.is_none() {
            return Ok(());
        }
        (next, first) = (page.next, false);
    }
}

async fn follow(client: &Client, args: &DetectionsArgs) -> Result<()> {
    let stop = signals::first_signal()?;
    let mut query = wanted(args);
    query.extend(args.from.map(|from| ("from", from.to_string())));
    if args.format == TextFormatArg::Csv {
        print(csv::HEADER)?;
    }
    let (mut last, mut opened) = (None, false);
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = listen(client, args, &query, &mut last, &mut opened, &stop) => ended,
        };
        match ended {
            Ok(()) => {}
            // It was there before, and will be again.
            Err(error) if opened && !is_broken_pipe(&error) => tracing::warn!("{error:#}: trying again"),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(RETRY) => {}
        }
    }
}

/// Prints results until the stream ends.
async fn listen(
    client: &Client,
    args: &DetectionsArgs,
    query: &[(&str, String)],
    last: &mut Option<String>,
    opened: &mut bool,
    stop: &CancellationToken,
) -> Result<()> {
    let mut response = client.live_detections(&args.scenario, query, last.as_deref()).await?;
    *opened = true;
    let mut events = sse::Reader::default();
    while !stop.is_cancelled() {
        let Some(bytes) = response.chunk().await.context("the stream of results broke")? else { return Ok(()) };
        for event in events.take(&bytes)? {
            let result: FrameDetections =
                serde_json::from_str(&event.data).context("a result of the API can't be read")?;
            match args.format {
                TextFormatArg::Jsonl => {
                    print(&(serde_json::to_string(&result).context("can't be written as JSON")? + "\n"))?;
                }
                TextFormatArg::Csv => print(&csv::lines(&result))?,
            }
            *last = event.id;
        }
    }
    bail!("interrupted")
}

fn print(lines: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}
