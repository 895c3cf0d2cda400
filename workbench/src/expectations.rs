//! What the structured steps of a scenario do and expect, except those about transactions (`delivered.rs`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::expect::{self, differences};
use crate::format::{Answer, Asked, Check, Event, Request, Sync, SyncEnds, ToDevice, Within};
use crate::homeserver::{Done, Halt};
use crate::listener::{Prepared, Rule, fits, pause};
use crate::names::segment;
use crate::requests::{send, sync_from, taken};
use crate::world::World;

/// Lines of text, indented.
fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compares a value with what is expected. The error shows the differences, then the whole.
fn compare(what: &str, expected: Option<&Value>, came: &Value) -> Result<(), String> {
    compare_in(what, expected, came, came)
}

/// What is expected, with its names replaced; `None` if a step expects nothing of a value.
///
/// # Errors
/// If a name is unknown, or a captured value is no operand where one stands.
pub(crate) fn expectation(world: &World, written: Option<&Value>) -> Result<Option<Value>, String> {
    let expected = written.map(|value| world.names.value(value)).transpose()?;
    expected.as_ref().map_or(Ok(()), expect::check)?;
    Ok(expected)
}

/// Compares a value like [`compare`], and shows `whole` in its place.
pub(crate) fn compare_in(
    what: &str,
    expected: Option<&Value>,
    came: &Value,
    whole: &Value,
) -> Result<(), String> {
    let found = expected.map_or(Vec::new(), |expected| differences(expected, came));
    match found.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{what}\n{}\n  whole: {whole}",
            indented(&expect::shown(&found)),
        )),
    }
}

/// Keeps values of a body for later steps.
///
/// # Errors
/// If there is nothing at a pointer.
pub(crate) fn capture(world: &mut World, names: &BTreeMap<String, String>, body: &Value) -> Done {
    for (name, pointer) in names {
        let value = body.pointer(pointer);
        let missing = || format!("capture {name}: nothing at {pointer:?}\n  whole: {body}");
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
    let path = world.names.request(method, path)?;
    let body = request
        .body
        .as_ref()
        .map(|body| world.names.body(body))
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
        return Err(Halt::Failed(format!(
            "{what}\n  expected  status {expected}\n  came      {}",
            reply.shown()
        )));
    }
    let expected = expectation(world, request.expect.body.as_ref())?;
    compare(&what, expected.as_ref(), &reply.body)?;
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

/// Syncs until an answer is as expected. Each try begins where the step began, so that what an earlier one brought is there again;
/// the client goes on from the last.
///
/// # Errors
/// If none is.
pub(crate) async fn sync_as(world: &mut World, step: &Sync) -> Done {
    let since = world.actor(&step.by)?.since.clone();
    let since = since.filter(|_| !step.from_start);
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let expected = expectation(world, step.expect.as_ref())?;
    loop {
        let settled = world.server.settle().await?;
        let answer = sync_from(world, &step.by, since.clone()).await?;
        let compared = compare("GET /sync", expected.as_ref(), &answer);
        if compared.is_err() && world.may_come(begun, patience, settled).await {
            continue;
        }
        taken(world, &step.by, &answer)?;
        compared?;
        return capture(world, &step.capture, &answer);
    }
}

/// Waits for the answer to a `/sync` that waits.
///
/// # Errors
/// If it does not come, or another one comes.
pub(crate) async fn sync_ends(world: &mut World, step: &SyncEnds) -> Done {
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let expected = expectation(world, step.expect.as_ref())?;
    let waiting = &mut world.actor(&step.by)?.waiting;
    let handle = waiting.as_mut().ok_or_else(|| {
        let by = &step.by;
        format!("no /sync of {by} waits; add the step `{by}: begins to sync` before")
    })?;
    // The answer takes a moment to arrive, also from a server that has nothing more to do.
    while !handle.is_finished() && begun.elapsed() < patience {
        pause(Duration::from_millis(5)).await;
    }
    if !handle.is_finished() {
        let why = "GET /sync\n  expected  an answer\n  came      none; it still waits";
        return Err(Halt::Failed(why.to_owned()));
    }
    let ended = handle.await.map_err(|e| e.to_string());
    *waiting = None;
    let (entry, reply) = ended??;
    // Recorded here, and not when it arrived, which can be at any time.
    world.log.answered(entry, &reply.line());
    if !reply.is_ok() {
        let came = reply.shown();
        let why = format!("GET /sync\n  expected  200\n  came      {came}");
        return Err(Halt::Failed(why));
    }
    taken(world, &step.by, &reply.body)?;
    compare("GET /sync", expected.as_ref(), &reply.body)?;
    capture(world, &step.capture, &reply.body)
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
        expectation(world, step.body.as_ref())?,
    );
    loop {
        let settled = world.server.settle().await?;
        let all = world.bridge(&step.bridge)?.listener.asked();
        let alike = all.iter().filter(|(line, _)| fits(&pattern, line));
        let compared: Vec<Result<(), String>> = alike
            .map(|(line, body)| {
                compare(
                    line,
                    expected.as_ref(),
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
        expectation(world, Some(&step.is))?,
    );
    Ok(compare(&step.value.to_string(), expected.as_ref(), &value)?)
}
