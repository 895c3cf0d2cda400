//! How long the texts may be that become part of a database index: one limit, and one table of exceptions in how they are refused.
//!
//! The specification limits identifiers, event types, state keys and names of profile fields to 255 bytes ([spec]). This server applies
//! the same limit where the specification has none: transaction ids, device ids, types of account data, tags, filter ids, ids of keys,
//! algorithms and backup sessions, receipt threads, keys of annotations. PostgreSQL takes no index row above 2,704 bytes; the
//! widest index has five such texts.
//!
//! [spec]: https://spec.matrix.org/v1.19/appendices/#common-identifier-format

use crate::Refusal;

/// The most bytes of an identifier, a type, or another text by which something is found.
pub const NAME: usize = 255;

/// Makes a refusal that says why.
type Refuse = fn(std::borrow::Cow<'static, str>) -> Refusal;

/// How a path variable that is too long is refused, where that is not [`Refusal::InvalidParam`].
const REFUSALS: [(&str, Refuse); 3] = [
    // https://spec.matrix.org/v1.19/client-server-api/#size-limits
    ("event_type", Refusal::TooLarge),
    ("state_key", Refusal::TooLarge),
    // https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
    ("field", Refusal::KeyTooLarge),
];

/// The decoded value of a path variable has at most [`NAME`] bytes: every variable of a path names something.
///
/// # Errors
/// [`Refusal::InvalidParam`], or the refusal that the table has for this variable.
pub fn check_variable(variable: &str, value: &str) -> Result<(), Refusal> {
    if value.len() <= NAME {
        return Ok(());
    }
    let refusal = REFUSALS.iter().find(|(name, _)| *name == variable);
    let refusal = refusal.map_or(Refusal::InvalidParam as Refuse, |(_, refusal)| *refusal);
    let bytes = value.len();
    Err(refusal(
        format!("{variable} has {bytes} bytes; {NAME} is the most").into(),
    ))
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
