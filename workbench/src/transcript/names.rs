//! Short names for long identifiers: `$1` for the hash of an event, `T1` for the id of a transaction, and the first characters
//! of keys and signatures.

use std::collections::BTreeMap;

/// The names assigned so far, in the order in which the transcript shows them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    events: BTreeMap<String, usize>,
    transactions: BTreeMap<String, usize>,
}

/// Whether a character belongs to one of the two alphabets of base64, in which hashes, keys and signatures are written.
fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/-_".contains(c)
}

/// The lengths in base64 of a hash or a key, and of a signature.
const KEY: usize = 43;
const SIGNATURE: usize = 86;

/// The number of digits of a transaction's id.
const TRANSACTION: usize = 16;

impl Names {
    /// Replaces long identifiers in a text.
    pub fn shorten(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(event) = rest.strip_prefix('$').and_then(hash) {
                out.push_str(&format!("${}", number(&mut self.events, event)));
                rest = &rest[1 + event.len()..];
            } else if is_base64(first) {
                let run = run(rest);
                out.push_str(&self.name(run));
                rest = &rest[run.len()..];
            } else {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        out
    }

    /// The short name for a run of base64 characters: a key, a signature, a path that ends with a transaction's id, or something
    /// else.
    fn name(&mut self, run: &str) -> String {
        if [KEY, SIGNATURE].contains(&run.len())
            && run.contains(|c: char| c.is_ascii_digit())
            && !run.starts_with('/')
        {
            return format!("{}…", &run[..6]);
        }
        let digits = run.len() - run.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        if digits == TRANSACTION {
            let (path, id) = run.split_at(run.len() - digits);
            return format!("{path}T{}", number(&mut self.transactions, id));
        }
        run.to_owned()
    }
}

fn run(text: &str) -> &str {
    &text[..text.find(|c| !is_base64(c)).unwrap_or(text.len())]
}

/// The hash at the start of a text.
fn hash(text: &str) -> Option<&str> {
    let run = run(text);
    (run.len() == KEY).then_some(run)
}

fn number(known: &mut BTreeMap<String, usize>, name: &str) -> usize {
    let next = known.len() + 1;
    *known.entry(name.to_owned()).or_insert(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_in_the_order_of_their_use() {
        let mut names = Names::default();
        let (one, two) = ("a".repeat(42) + "1", "-".repeat(42) + "2");
        let text = format!("[\"${two}\",\"${one}\",\"${two}\"] /rooms/!room1:test/event/${one}");
        assert_eq!(
            names.shorten(&text),
            "[\"$1\",\"$2\",\"$1\"] /rooms/!room1:test/event/$2"
        );
        let text = "PUT /_matrix/app/v1/transactions/1735689600000003 {\"txn\":1735689600000003,\"ts\":1735689600000}";
        assert_eq!(
            names.shorten(text),
            "PUT /_matrix/app/v1/transactions/T1 {\"txn\":T1,\"ts\":1735689600000}"
        );
        let text = format!("{{\"ed25519:{one}\":\"{}\"}}", "Z9".repeat(43));
        assert_eq!(names.shorten(&text), "{\"ed25519:aaaaaa…\":\"Z9Z9Z9…\"}");
    }
}
