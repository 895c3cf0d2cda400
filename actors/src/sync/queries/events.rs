//! Lists of events in an answer.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::Result;

/// An object with a list under `events`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Events {
    pub(crate) events: Vec<Box<RawValue>>,
}

impl Events {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl From<Vec<Box<RawValue>>> for Events {
    fn from(events: Vec<Box<RawValue>>) -> Self {
        Events { events }
    }
}

/// Account data in the format of an event.
pub(crate) fn data_event(kind: &str, content: &str) -> Result<Box<RawValue>> {
    #[derive(Serialize)]
    struct Data<'a> {
        content: &'a RawValue,
        r#type: &'a str,
    }
    Ok(to_raw_value(&Data {
        content: serde_json::from_str(content)?,
        r#type: kind,
    })?)
}
