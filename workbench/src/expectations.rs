//! What the structured steps of a scenario do and expect.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::expect::{self, differences};
use crate::format::{
    Answer, Asked, Check, Event, Receives, Request, Sync, ToDevice, Transaction, Within,
};
use crate::homeserver::{Done, Halt};
use crate::listener::{Attempt, Prepared, Rule, fits};
use crate::names::segment;
use crate::requests::{send, sync};
use crate::sections::{SECTIONS, items};
use crate::world::World;

/// The longest value that an error shows whole.
const SHOWN: usize = 2_000;

/// Lines of text, indented.
fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// Compares a value with what is expected. The error shows the differences, then the whole.
fn compare(what: &str, expected: &Value, came: &Value) -> Result<(), String> {
    compare_in(what, expected, came, came)
}

/// Compares a value like [`compare`], and shows `whole` in its place.
fn compare_in(what: &str, expected: &Value, came: &Value, whole: &Value) -> Result<(), String> {
    let found = if expected.is_null() {
        Vec::new()
    } else {
        differences(expected, came)
    };
    match found.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{what}\n{}\n  whole: {}",
            indented(&expect::shown(&found)),
            shortened(whole)
        )),
    }
}

fn capture(world: &mut World, names: &BTreeMap<String, String>, body: &Value) -> Done {
    for (name, pointer) in names {
        let value = body.pointer(pointer);
        let missing = || {
            format!(
                "capture {name}: nothing at {pointer:?}\n  whole: {}",
                shortened(body)
            )
        };
        world
            .names
            .captured
            .insert(name.clone(), value.ok_or_else(missing)?.clone());
    }
    Ok(())
}

fn prepared(world: &mut World, request: &Request, by: &str) -> Done<Prepared> {
    let (method, path) = request.line()?;
    let by = if request.by.is_empty() {
        by
    } else {
        &request.by
    };
    let path = world.names.path(path)?;
    let body = request
        .body
        .as_ref()
        .map(|body| world.names.value(body))
        .transpose()?;
    // A PUT or a POST without a body has an empty one.
    let body = body.or_else(|| matches!(method, "PUT" | "POST").then(|| json!({})));
    Ok(Prepared {
        client: world.client(by)?,
        method: method.to_owned(),
        path,
        body,
    })
}

/// Makes a request, and compares the answer.
///
/// # Errors
/// If another answer comes.
pub(crate) async fn request(world: &mut World, request: &Request) -> Done {
    if request.by.is_empty() {
        return Err(Halt::Failed(
            "a request says `by:` what client it is made".to_owned(),
        ));
    }
    let made = prepared(world, request, "")?;
    let reply = made
        .client
        .ask(&made.method, &made.path, made.body.as_ref())
        .await?;
    let what = format!("{} {}", made.method, made.path);
    let is_right = match request.expect.status {
        Some(status) => reply.status == status,
        None => reply.is_ok(),
    };
    if !is_right {
        let expected = request
            .expect
            .status
            .map_or("a success".to_owned(), |s| s.to_string());
        let came = format!("{} {}", reply.status, shortened(&reply.body));
        return Err(Halt::Failed(format!(
            "{what}\n  expected  status {expected}\n  came      {came}"
        )));
    }
    if let Some(body) = &request.expect.body {
        compare(&what, &world.names.value(body)?, &reply.body)?;
    }
    capture(world, &request.capture, &reply.body)
}

/// Sends a message to a device.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn to_device(world: &mut World, step: &ToDevice) -> Done {
    let user = world.names.user(&step.to);
    let content = world.names.value(&json!(step.content))?;
    let path = format!("/sendToDevice/{}/{}", segment(&step.kind), world.txn());
    let body = json!({"messages": {user: {&step.device: content}}});
    world
        .client(&step.by)?
        .must("PUT", &path, Some(&body))
        .await?;
    Ok(())
}

/// Sends an event.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn event(world: &mut World, step: &Event) -> Done {
    let content = world.names.value(&json!(step.content))?;
    let id = match &step.state_key {
        None => send(world, &step.by, &step.room, &step.kind, &content).await?,
        Some(key) => {
            let room = segment(&world.names.room(&step.room)?);
            let key = segment(&world.names.text(key)?);
            let path = format!("/rooms/{room}/state/{}/{key}", segment(&step.kind));
            let sent = world
                .client(&step.by)?
                .must("PUT", &path, Some(&content))
                .await?;
            sent["event_id"].as_str().unwrap_or_default().to_owned()
        }
    };
    if let Some(name) = &step.capture {
        world.names.captured.insert(name.clone(), json!(id));
    }
    Ok(())
}

/// Syncs until an answer is as expected.
///
/// # Errors
/// If none is.
pub(crate) async fn sync_as(world: &mut World, step: &Sync) -> Done {
    if step.from_start {
        world.actor(&step.by)?.since = None;
    }
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let expected = world.names.value(&step.expect)?;
    loop {
        let settled = world.server.settle().await?;
        let answer = sync(world, &step.by).await?;
        let compared = compare("GET /sync", &expected, &answer);
        match compared {
            Ok(()) => return capture(world, &step.capture, &answer),
            Err(_) if world.may_come(begun, patience, settled).await => {}
            Err(why) => return Err(Halt::Failed(why)),
        }
    }
}

/// Waits for a transaction.
///
/// # Errors
/// If none comes that is as expected.
pub(crate) async fn transaction(world: &mut World, step: &Transaction) -> Done {
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let expected = world.names.value(&step.body)?;
    loop {
        let settled = world.server.settle().await?;
        let bridge = world.bridge(&step.to)?;
        let attempts = bridge.listener.attempts();
        let mut why = "the next transaction\n  expected  one\n  came      none".to_owned();
        for at in bridge.seen..attempts.len() {
            match is_as_expected(step, &expected, &attempts, at) {
                Ok(body) => {
                    bridge.seen = at + 1;
                    return capture(world, &step.capture, &body);
                }
                Err(found) => why = found,
            }
            if !step.later {
                break;
            }
        }
        // A transaction that came and differs is final, unless a later one may match.
        let is_final = !step.later && attempts.len() > world.bridge(&step.to)?.seen;
        if !world.may_come(begun, patience, settled || is_final).await {
            return Err(Halt::Failed(why));
        }
    }
}

/// Compares an attempt to send a transaction. Returns its body.
fn is_as_expected(
    step: &Transaction,
    expected: &Value,
    attempts: &[Attempt],
    at: usize,
) -> Result<Value, String> {
    let attempt = &attempts[at];
    let what = format!("PUT {}", attempt.path);
    let body = attempt.sections();
    let whole = serde_json::from_str(&attempt.body).unwrap_or(Value::Null);
    compare_in(&what, expected, &body, &whole)?;
    if let Some(status) = step.answered.filter(|status| *status != attempt.answered) {
        let came = attempt.answered;
        return Err(format!(
            "{what}\n  expected  answered {status}\n  came      answered {came}"
        ));
    }
    let is_repeated =
        at > 0 && attempts[at - 1].path == attempt.path && attempts[at - 1].body == attempt.body;
    if step.repeated && !is_repeated {
        let before = at.checked_sub(1).map(|before| &attempts[before]);
        let before = before.map_or("nothing before".to_owned(), |a| {
            format!("{} {}", a.path, a.body)
        });
        return Err(format!(
            "{what}\n  expected  again  {before}\n  came      {} {}",
            attempt.path, attempt.body
        ));
    }
    Ok(body)
}

/// Waits for items in the transactions of a bridge.
///
/// # Errors
/// If one does not come.
pub(crate) async fn receives(world: &mut World, step: &Receives) -> Done {
    let (begun, Within(patience)) = (Instant::now(), step.within);
    for section in SECTIONS {
        let wanted = match section {
            "to_device" => &step.to_device,
            "events" => &step.events,
            "ephemeral" => &step.ephemeral,
            "changed" => &step.changed,
            _ => &step.left,
        };
        let wanted = wanted
            .iter()
            .map(|item| world.names.value(item))
            .collect::<Result<Vec<_>, _>>()?;
        loop {
            let settled = world.server.settle().await?;
            let bridge = world.bridge(&step.bridge)?;
            let attempts = bridge.listener.attempts();
            let taken = attempts
                .iter()
                .enumerate()
                .filter(|(_, attempt)| attempt.is_taken());
            let came: Vec<(usize, Value)> = taken
                .flat_map(|(at, attempt)| {
                    items(&attempt.sections(), section)
                        .into_iter()
                        .map(move |item| (at, item))
                })
                .collect();
            let begin = bridge.found.get(section).copied().unwrap_or(0);
            match found(&wanted, &came, begin, step.in_any_order) {
                Ok(end) => {
                    if let Some((at, _)) = came.get(end.wrapping_sub(1)).filter(|_| end > begin) {
                        bridge.seen = bridge.seen.max(at + 1);
                    }
                    bridge.found.insert(section, end);
                    break;
                }
                Err(_) if world.may_come(begun, patience, settled).await => {}
                Err(missing) => {
                    let rest: Vec<String> = came[begin.min(came.len())..]
                        .iter()
                        .map(|(_, item)| item.to_string())
                        .collect();
                    let rest = if rest.is_empty() {
                        "nothing".to_owned()
                    } else {
                        rest.join("\n            ")
                    };
                    return Err(Halt::Failed(format!(
                        "{section}\n  expected  {missing}\n  came      {rest}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// The index after the last of the items that are wanted, or one that did not come.
fn found(
    wanted: &[Value],
    came: &[(usize, Value)],
    begin: usize,
    in_any_order: bool,
) -> Result<usize, Value> {
    let (mut end, mut at, mut used) = (begin, begin, Vec::new());
    for item in wanted {
        let from = if in_any_order { begin } else { at };
        let place =
            (from..came.len()).find(|i| !used.contains(i) && expect::matches(item, &came[*i].1));
        let place = place.ok_or_else(|| item.clone())?;
        used.push(place);
        at = place + 1;
        end = end.max(at);
    }
    Ok(end)
}

/// Says how a bridge answers requests other than transactions.
///
/// # Errors
/// If a name is unknown.
pub(crate) fn answer(world: &mut World, step: &Answer) -> Done {
    let first = step
        .first
        .iter()
        .map(|request| prepared(world, request, &step.bridge));
    let first = first.collect::<Done<Vec<Prepared>>>()?;
    let rule = Rule {
        to: line_pattern(world, &step.to)?,
        status: step.status,
        body: world.names.value(&json!(step.body))?,
        first,
    };
    world.bridge(&step.bridge)?.listener.answer(rule);
    Ok(())
}

/// The pattern of a method and a path, with the names in its segments replaced.
fn line_pattern(world: &World, pattern: &str) -> Result<String, String> {
    let parts = pattern.split('/').map(|part| world.names.text(part));
    Ok(parts.collect::<Result<Vec<_>, _>>()?.join("/"))
}

/// Waits for a request to a bridge other than a transaction.
///
/// # Errors
/// If it does not come, or not so often.
pub(crate) async fn asked(world: &mut World, step: &Asked) -> Done {
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let (pattern, expected) = (
        line_pattern(world, &step.request)?,
        world.names.value(&step.body)?,
    );
    loop {
        let settled = world.server.settle().await?;
        let all = world.bridge(&step.bridge)?.listener.asked();
        let alike = all.iter().filter(|(line, _)| fits(&pattern, line));
        let compared: Vec<Result<(), String>> = alike
            .map(|(line, body)| {
                compare(
                    line,
                    &expected,
                    &serde_json::from_str(body).unwrap_or(Value::Null),
                )
            })
            .collect();
        let right = compared.iter().filter(|c| c.is_ok()).count();
        let is_right = step.times.map_or(right > 0, |times| right == times);
        if is_right {
            return Ok(());
        }
        if !world.may_come(begun, patience, settled).await {
            let differs = compared.into_iter().find_map(Result::err);
            let times = step
                .times
                .map_or("at least once".to_owned(), |times| format!("{times} times"));
            let lines: Vec<&str> = all.iter().map(|(line, _)| line.as_str()).collect();
            return Err(Halt::Failed(differs.unwrap_or_else(|| {
                let came = if lines.is_empty() {
                    "nothing".to_owned()
                } else {
                    lines.join("\n            ")
                };
                format!("  expected  {pattern}, {times}\n  came      {came}")
            })));
        }
    }
}

/// Compares a captured value.
///
/// # Errors
/// If it is not as expected.
pub(crate) fn check(world: &World, step: &Check) -> Done {
    let (value, expected) = (
        world.names.value(&step.value)?,
        world.names.value(&step.is)?,
    );
    Ok(compare(&step.value.to_string(), &expected, &value)?)
}
