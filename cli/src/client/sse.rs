//! Server-sent events, as the API sends them: `id` and `data`, ended by an empty line.

use anyhow::{Result, bail};

/// A longer event is none of kadr's.
const LONGEST: usize = 16 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub data: String,
}

/// What has come of a stream and is no event yet.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    id: Option<String>,
    data: Option<String>,
}

impl Reader {
    /// The events that are complete with these bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        if self.line.len() + self.data.as_ref().map_or(0, String::len) > LONGEST {
            bail!("the API sends an event without an end");
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let id = self.id.take();
            return self.data.take().map(|data| Event { id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => self.data = Some(value.to_owned()),
            },
            // Comments keep the connection alive; there is one type of events.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text =
            ":\n\nid: 7\nevent: detections\ndata: {\"a\":\ndata: 1}\n\n:\n\nretry: 5\n\ndata:x\r\n\r\nid: 9\ndata: y";
        let wanted = [Event { id: Some("7".into()), data: "{\"a\":\n1}".into() }, Event { id: None, data: "x".into() }];
        for cut in 0..text.len() {
            let (before, after) = text.as_bytes().split_at(cut);
            let mut reader = Reader::default();
            let mut events = reader.take(before).unwrap();
            events.extend(reader.take(after).unwrap());
            assert_eq!(events, wanted, "cut at {cut}");
        }
    }
}
