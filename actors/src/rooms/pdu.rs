//! Reading and making events in the server-server format.

use serde_json::value::RawValue;

/// The `membership` in the content of a member event.
pub(crate) fn membership_in(content: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    let content: Content = serde_json::from_str(content.get()).ok()?;
    Some(content.membership)
}
