//! One set-up of logging for every service: to standard error, by `KADR_LOG` (as `info`, or `kadr_runner=debug,warn`).

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Starts logging at `default` unless `KADR_LOG` says otherwise. A second call changes nothing.
pub fn init(default: &str) {
    let filter = EnvFilter::try_from_env("KADR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // It fails only if a subscriber is there already, as in tests that share a process.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}

/// An error with all its causes on one line: `Display` of each names only itself.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}
