//! The line in the corner: whose picture it is, and of when.

use kadr_shared::{id::ScenarioId, time::Timestamp};

/// With the time at which it was taken, if the source tells, else with its place in the video.
pub(crate) fn caption(scenario: &ScenarioId, captured_at: Option<Timestamp>, pts_ms: f64) -> String {
    match captured_at {
        Some(at) => {
            let time = at.to_string();
            // RFC 3339 to the millisecond, for people: a space for the T, tenths.
            let (day, clock) = time.split_once('T').unwrap_or((&time, ""));
            let clock = clock.trim_end_matches('Z');
            format!("{scenario}  {day} {}Z", clock.get(..10).unwrap_or(clock))
        }
        None => {
            // Casting saturates.
            let tenths = (pts_ms / 100.0) as u64;
            let (seconds, tenth) = (tenths / 10, tenths % 10);
            format!("{scenario}  {:02}:{:02}:{:02}.{tenth}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_time_or_the_place() {
        let gate = "gate".parse().unwrap();
        assert_eq!(caption(&gate, None, 3_723_456.0), "gate  01:02:03.4");
        assert_eq!(caption(&gate, Some(Timestamp::from_millis(1_234)), 0.0), "gate  1970-01-01 00:00:01.2Z");
        assert_eq!(caption(&gate, None, f64::NAN), "gate  00:00:00.0");
    }
}
