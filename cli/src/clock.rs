//! A wrong clock, for tests of whole processes (`make chaos`): nothing may depend on what the wall clock says.

use std::{path::PathBuf, time::Duration};

use kadr_shared::time::shift_clock;

/// Names a file that holds the milliseconds by which this process's wall clock is to be wrong.
const OFFSET_FILE: &str = "KADR_CLOCK_OFFSET_FILE";
/// How often it is read.
const LOOK: Duration = Duration::from_millis(50);

/// Follows the file, if the environment names one.
pub fn follow_offset() {
    let Some(file) = std::env::var_os(OFFSET_FILE).map(PathBuf::from) else { return };
    // It reads for as long as the process lives: there is nobody to wait for it.
    std::thread::spawn(move || {
        loop {
            // Being written, or not there yet: the next look tells.
            if let Some(millis) = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()) {
                shift_clock(millis);
            }
            std::thread::sleep(LOOK);
        }
    });
}
