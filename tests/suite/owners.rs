//! Each group of tables is owned by one actor, and only the owner's folder calls the functions that write to it. The exceptions are
//! writes that belong together in one commit. Each states its reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::files;

/// Functions that other actors call as part of their own writes: module, function, callers, and why they do not send a message.
const COMPOSED: &[(&str, &str, &[&str], &str)] = &[
    (
        "owed",
        "owe",
        &["hooks"],
        "what a proposal owes is committed with the fact",
    ),
    (
        "scratch",
        "put",
        &["hooks"],
        "what a proposal stores is committed with the fact",
    ),
    (
        "scratch",
        "delete",
        &["hooks"],
        "what a proposal deletes is committed with the fact",
    ),
    (
        "owed",
        "owe_all",
        &["rooms", "to_device_inbox"],
        "what is owed is committed with the fact",
    ),
    (
        "owed",
        "owe_latest",
        &["accounts", "hooks"],
        "what is owed is committed with the fact",
    ),
    (
        "owed",
        "forget_key",
        &["accounts"],
        "what a registration no longer covers is deleted with the change",
    ),
    (
        "owed",
        "forget_part",
        &["accounts"],
        "all data of a deactivated account is deleted in one write",
    ),
    (
        "counts",
        "owe_counts",
        &["appservices"],
        "a page of a back-fill owes items and records its progress",
    ),
    (
        "server_info",
        "set",
        &["appservices"],
        "the names of broken files are kept with the registrations",
    ),
    (
        "inbox",
        "decide",
        &["appservices"],
        "a page of a back-fill owes items and records its progress",
    ),
    (
        "device_log",
        "keys_changed",
        &["accounts", "key_store"],
        "the line of the log is the durable copy of the fact",
    ),
    (
        "device_log",
        "private_keys_changed",
        &["key_store"],
        "the line of the log is the durable copy of the fact",
    ),
    (
        "device_log",
        "membership_changed",
        &["rooms"],
        "the line of the log is the durable copy of the fact",
    ),
    (
        "tracked",
        "set_sent_until",
        &["appservices"],
        "what a registration switches off is committed with it",
    ),
    (
        "service_rooms",
        "set_members",
        &["appservices"],
        "the members are counted for a registration and committed with it",
    ),
    (
        "accounts",
        "ensure_sender",
        &["appservices"],
        "the account of the sender is created with the registration",
    ),
    (
        "backup",
        "forget_user",
        &["accounts"],
        "all data of a deactivated account is deleted in one write",
    ),
    (
        "signing_keys",
        "forget_user",
        &["accounts"],
        "all data of a deactivated account is deleted in one write",
    ),
    (
        "client_transactions",
        "remember",
        &["runtime", "to_device_inbox"],
        "the answer to a transaction id is committed with the effect of the request",
    ),
    (
        "client_transactions",
        "stored_response",
        &["runtime", "to_device_inbox"],
        "it is read before `remember`, in the same write",
    ),
];

/// The owner of a module of `schema`, and the functions of it that write.
struct Written {
    owner: String,
    functions: BTreeSet<String>,
}

/// The modules of `schema` with functions that write, by name.
fn written() -> BTreeMap<String, Written> {
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for (file, text) in files("schema/src") {
        let path = file.split("schema/src/").last().unwrap_or_default();
        let module = path.split(['/', '.']).next().unwrap_or_default();
        modules
            .entry(module.to_owned())
            .or_default()
            .push_str(&text);
    }
    let written = modules.into_iter().filter_map(|(module, text)| {
        let functions = writing_functions(&text);
        if functions.is_empty() {
            return None;
        }
        let owners = text.split("//! Owner: `").skip(1);
        let owners: BTreeSet<&str> = owners.filter_map(|rest| rest.split('`').next()).collect();
        let [owner] = owners.into_iter().collect::<Vec<_>>()[..] else {
            panic!("schema/src/{module} writes, and does not name one \"Owner: `…`\"");
        };
        let owner = owner.to_owned();
        Some((module, Written { owner, functions }))
    });
    written.collect()
}

/// Texts in the signature or body of a function by which it is recognised to change rows.
const MARKS: [&str; 7] = [
    "insert_into",
    "diesel::update",
    "diesel::delete",
    "insert_all!",
    "change!(",
    "cursors::store(",
    "&mut Tx<",
];

/// The functions of a file outside of `impl` blocks: name, text, and whether it is public.
fn functions(text: &str) -> Vec<(String, String, bool)> {
    let mut all: Vec<(String, String, bool)> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let begun = ["pub fn ", "pub(crate) fn ", "pub(super) fn ", "fn "];
        let begun = begun.iter().find_map(|head| line.strip_prefix(head));
        if let Some(rest) = begun {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            all.push((name.to_owned(), String::new(), line.starts_with("pub fn ")));
            is_open = true;
        }
        if let (true, Some((_, body, _))) = (is_open, all.last_mut()) {
            body.push_str(line);
            body.push('\n');
        }
        is_open &= line != "}";
    }
    all
}

/// The public functions of a file that change rows, directly or through another function of the file.
fn writing_functions(text: &str) -> BTreeSet<String> {
    let functions = functions(text);
    let mut writing: BTreeSet<&str> = BTreeSet::new();
    loop {
        let found = functions.iter().find(|(name, body, _)| {
            let by_itself = MARKS.iter().any(|mark| body.contains(mark));
            let by_another = writing
                .iter()
                .any(|other| body.contains(&format!(" {other}(")));
            !writing.contains(name.as_str()) && (by_itself || by_another)
        });
        match found {
            Some((name, ..)) => writing.insert(name),
            None => break,
        };
    }
    let public = functions.iter().filter(|(_, _, is_public)| *is_public);
    let names = public.map(|(name, ..)| name.as_str());
    names
        .filter(|name| writing.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Whether a file calls a function of a module of `schema`, by its path or by an import.
fn calls(text: &str, module: &str, function: &str) -> bool {
    let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let path = format!("{module}::{function}");
    let by_path = text
        .match_indices(&path)
        .any(|(at, _)| is_whole(&text[at + path.len()..]));
    let imports = text
        .split("use schema::")
        .skip(1)
        .filter_map(|rest| rest.split(';').next());
    let lists = imports.filter_map(|import| import.strip_prefix(module)?.strip_prefix("::{"));
    by_path
        || lists
            .flat_map(|list| list.split([',', '}']))
            .any(|name| name.trim() == function)
}

#[test]
fn only_the_owner_of_a_table_writes_to_it() {
    let (written, mut used) = (written(), BTreeSet::new());
    let mut wrong = Vec::new();
    for (file, text) in files("actors/src") {
        if file.contains("/tests") || file.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let path = file.split("actors/src/").last().unwrap_or_default();
        let folder = path.split(['/', '.']).next().unwrap_or_default();
        for (module, Written { owner, functions }) in &written {
            for function in functions
                .iter()
                .filter(|f| folder != owner && calls(code, module, f))
            {
                let composed = COMPOSED
                    .iter()
                    .find(|(m, f, by, _)| m == module && f == function && by.contains(&folder));
                match composed {
                    Some((module, function, ..)) => drop(used.insert((*module, *function))),
                    None => wrong.push(format!(
                        "{file} calls {module}::{function}, which writes for `{owner}`"
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let unused: Vec<_> = COMPOSED
        .iter()
        .filter(|(m, f, ..)| !used.contains(&(*m, *f)))
        .collect();
    assert!(
        unused.is_empty(),
        "no file calls these any more; remove them from COMPOSED: {unused:?}"
    );
}
