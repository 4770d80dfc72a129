//! Server-sent events, as far as a live call needs them: was the first thing that came an answer or an error?
//!
//! The form is that of the HTML standard (section 9.2.6); Elasticsearch puts a byte order mark before each event.

/// One event of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its data, JSON of Elasticsearch.
    Message(String),
    /// The same for `event: error`.
    Error(String),
    /// The last event of a stream that ended well.
    End,
}

/// The first whole event that has data; `None` while there is none.
pub(crate) fn first(body: &[u8]) -> Option<Event> {
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n");
    // What follows the last empty line has not come to its end.
    let (whole, _) = text.rsplit_once("\n\n")?;
    whole.split("\n\n").find_map(event)
}

fn event(block: &str) -> Option<Event> {
    let mut kind = "message";
    let mut data = Vec::new();
    for line in block.lines() {
        let line = line.trim_start_matches('\u{feff}');
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => kind = value,
            "data" => data.push(value),
            _ => {}
        }
    }
    let data = data.join("\n");
    match (kind, data.trim()) {
        (_, "") => None,
        ("error", _) => Some(Event::Error(data)),
        (_, "[DONE]") => Some(Event::End),
        _ => Some(Event::Message(data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &str, found: Option<&Event>) {
        assert_eq!(first(stream.as_bytes()).as_ref(), found, "{stream:?}");
    }

    #[test]
    fn the_first_whole_event_with_data_counts() {
        let message = Event::Message("{}".to_owned());
        for none in ["", "event: message\ndata: {}", "event: message\ndata: {}\n"] {
            check(none, None);
        }
        for whole in [
            "event: message\ndata: {}\n\n",
            "\u{feff}event: message\ndata: {}\n\n\u{feff}event: error\ndata: x\n\n",
            "event: message\r\ndata:{}\r\n\r\n",
            ": wait\n\nevent: message\n\ndata: {}\n\n",
        ] {
            check(whole, Some(&message));
        }
        let error = Event::Error("{\n}".to_owned());
        check("event: error\ndata: {\ndata: }\n\n", Some(&error));
        check("event: message\ndata: [DONE]\n\n", Some(&Event::End));
        assert_eq!(
            first(b"data: \xff\n\n"),
            Some(Event::Message("\u{fffd}".to_owned()))
        );
    }
}
