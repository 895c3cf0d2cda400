//! The length limit of texts that become part of a database index, and how a text that is too long is refused.
//!
//! The specification limits identifiers, event types, state keys and names of profile fields to 255 bytes ([spec]). This server
//! applies the same limit where the specification has none: transaction ids, device ids, types of account data, tags, filter ids,
//! ids of keys, algorithms and backup sessions, receipt threads, keys of annotations. PostgreSQL takes no index row above 2,704
//! bytes; the widest index has five such texts.
//!
//! [spec]: https://spec.matrix.org/v1.19/appendices/#common-identifier-format

use crate::{Refusal, Result};

/// The most bytes of an identifier, a type, or another text that serves as a key.
pub const NAME: usize = 255;

/// Makes a refusal from its reason.
type Refuse = fn(std::borrow::Cow<'static, str>) -> Refusal;

/// The refusals of path variables that are too long, where they differ from [`Refusal::InvalidParam`].
const REFUSALS: [(&str, Refuse); 3] = [
    // https://spec.matrix.org/v1.19/client-server-api/#size-limits
    ("event_type", Refusal::TooLarge),
    ("state_key", Refusal::TooLarge),
    // https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
    ("field", Refusal::KeyTooLarge),
];

/// Check that the decoded value of a path variable has at most [`NAME`] bytes. Every path variable is an identifier.
///
/// # Errors
/// [`Refusal::InvalidParam`], or the refusal for this variable in the table.
pub fn check_variable(variable: &str, value: &str) -> Result<(), Refusal> {
    if value.len() <= NAME {
        return Ok(());
    }
    let refusal = REFUSALS.iter().find(|(name, _)| *name == variable);
    let refusal = refusal.map_or(Refusal::InvalidParam as Refuse, |(_, refusal)| *refusal);
    let bytes = value.len();
    Err(refusal(
        format!("{variable} has {bytes} bytes; at most {NAME} are allowed").into(),
    ))
}

/// Refuse an event type, state key or transaction id that is longer than [`NAME`] bytes or contains U+0000. ([spec])
///
/// # Errors
/// [`Refusal::TooLarge`], [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#size-limits
/// Clause: cs.api.lengths
pub fn check_name(what: &str, text: &str) -> Result<()> {
    if text.len() > NAME {
        return Err(Refusal::TooLarge(
            format!("{what} has {} bytes; {NAME} is the most", text.len()).into(),
        )
        .into());
    }
    check_nul(what, text)
}

/// Refuse U+0000 in a text for a column: PostgreSQL cannot store it.
///
/// # Errors
/// [`Refusal::InvalidParam`]
pub fn check_nul(what: &str, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Refusal::InvalidParam(format!("{what} contains U+0000").into()).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_variable_has_at_most_255_bytes() {
        let (fits, long) = ("x".repeat(NAME), "x".repeat(NAME + 1));
        for variable in ["txn_id", "event_type", "field"] {
            assert!(check_variable(variable, &fits).is_ok());
        }
        let refused = |variable| check_variable(variable, &long).expect_err("too long");
        assert!(matches!(refused("txn_id"), Refusal::InvalidParam(_)));
        assert!(matches!(refused("event_type"), Refusal::TooLarge(_)));
        assert!(matches!(refused("field"), Refusal::KeyTooLarge(_)));
        // Bytes, not characters.
        assert!(check_variable("device_id", &"ä".repeat(128)).is_err());
    }
}
