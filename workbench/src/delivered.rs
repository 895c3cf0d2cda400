//! What bridges are sent in transactions, and what a scenario expects of it.
//!
//! A homeserver that runs in real time sends more than the steps name: it sends what failed again, and reports key counts and
//! presence, when it sees fit. Steps pass over such attempts ([`is_extra`]), unless the homeserver stands still between steps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::expect;
use crate::expectations::{capture, compare_in, expectation};
use crate::format::{Receives, Transaction, Within};
use crate::homeserver::{Done, Halt};
use crate::listener::{Attempt, pause};
use crate::sections::{has_items, items};
use crate::world::World;

/// Said where the clock stands, so that waiting longer changes nothing.
const STANDS: &str = "; the clock of this server stands until a step says `wait`";

/// How long a homeserver that cannot say whether it is idle is watched before it counts as idle.
const REST: Duration = Duration::from_secs(1);

/// Whether an attempt says nothing that a step could expect: it repeats one that was not acknowledged, or carries key counts and
/// presence alone.
#[must_use]
fn is_extra(attempts: &[Attempt], at: usize) -> bool {
    let attempt = &attempts[at];
    let earlier = attempts[..at].iter().filter(|a| a.path == attempt.path);
    let was_taken: Vec<bool> = earlier.map(Attempt::is_taken).collect();
    let is_again = !was_taken.is_empty() && !was_taken.contains(&true);
    is_again || !has_items(&attempt.sections())
}

/// Waits for a transaction.
///
/// # Errors
/// If none comes that is as expected.
pub(crate) async fn transaction(world: &mut World, step: &Transaction) -> Done {
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let expected = expectation(world, step.body.as_ref())?;
    loop {
        let settled = world.server.settle().await?;
        let bridge = world.bridge(&step.to)?;
        let attempts = bridge.listener.attempts();
        let stands = if settled { STANDS } else { "" };
        let mut why = format!("the next transaction\n  expected  one\n  came      none{stands}");
        // A transaction that came and differs is final, unless a later one may match.
        let mut is_final = false;
        for at in bridge.seen..attempts.len() {
            match is_as_expected(step, &expected, &attempts, at) {
                Ok(body) => {
                    bridge.seen = at + 1;
                    return capture(world, &step.capture, &body);
                }
                Err(found) => why = found,
            }
            if !step.later && (settled || !is_extra(&attempts, at)) {
                is_final = true;
                break;
            }
        }
        if !world.may_come(begun, patience, settled || is_final).await {
            return Err(Halt::Failed(why));
        }
    }
}

/// Compares an attempt to send a transaction. Returns its body.
fn is_as_expected(
    step: &Transaction,
    expected: &Option<Value>,
    attempts: &[Attempt],
    at: usize,
) -> Result<Value, String> {
    let attempt = &attempts[at];
    let what = format!("PUT {}", attempt.path);
    let body = attempt.sections();
    let whole = serde_json::from_str(&attempt.body).unwrap_or(Value::Null);
    compare_in(&what, expected.as_ref(), &body, &whole)?;
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
    for (section, wanted) in step.items() {
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
                    let rest = match rest.is_empty() {
                        true if settled => format!("nothing{STANDS}"),
                        true => "nothing".to_owned(),
                        false => rest.join("\n            "),
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

/// Expects no transaction besides those that steps expected.
///
/// # Errors
/// If one came.
pub(crate) async fn nothing_more(world: &mut World, id: &str) -> Done {
    let settled = rests(world).await?;
    let bridge = world.bridge(id)?;
    let attempts = bridge.listener.attempts();
    let more = (bridge.seen..attempts.len()).find(|at| settled || !is_extra(&attempts, *at));
    match more.map(|at| &attempts[at]) {
        None => Ok(()),
        Some(more) => Err(Halt::Failed(format!(
            "  expected  no further transaction\n  came      {} {}",
            more.path, more.body
        ))),
    }
}

/// Expects that no id was used for two transactions.
///
/// # Errors
/// If two different bodies came under one id.
pub(crate) async fn one_body_each(world: &mut World, id: &str) -> Done {
    rests(world).await?;
    let attempts = world.bridge(id)?.listener.attempts();
    match two_bodies(&attempts) {
        None => Ok(()),
        Some((first, second)) => Err(Halt::Failed(format!(
            "{}\n  expected  always  {}\n  came      also    {}",
            first.path, first.body, second.body
        ))),
    }
}

/// The first two attempts with the same path, and so the same transaction id, whose bodies differ.
#[must_use]
pub(crate) fn two_bodies(attempts: &[Attempt]) -> Option<(&Attempt, &Attempt)> {
    let mut first: BTreeMap<&str, &Attempt> = BTreeMap::new();
    attempts.iter().find_map(|attempt| {
        let known = first.entry(&attempt.path).or_insert(attempt);
        (known.body != attempt.body).then_some((*known, attempt))
    })
}

/// Waits until nothing more comes. Returns `false` if the homeserver cannot say so and was only watched for a while.
pub(crate) async fn rests(world: &World) -> Done<bool> {
    let settled = world.server.settle().await?;
    if !settled {
        pause(REST).await;
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attempt(id: u32, answered: u16, body: &Value) -> Attempt {
        Attempt {
            path: format!("/transactions/{id}"),
            body: body.to_string(),
            answered,
        }
    }

    #[test]
    fn repetitions_counts_and_presence_are_extra_and_nothing_else_is() {
        let message = json!({"events": [], "de.sorunome.msc2409.to_device": [{}]});
        let attempts = [
            attempt(1, 500, &message),
            attempt(1, 200, &message),
            attempt(1, 200, &message),
            attempt(
                2,
                200,
                &json!({"events": [], "org.matrix.msc3202.device_one_time_keys_count": {"@a:b": {"C": {}}}}),
            ),
            attempt(
                3,
                200,
                &json!({"events": [], "ephemeral": [{"type": "m.presence"}]}),
            ),
            attempt(
                4,
                200,
                &json!({"events": [], "ephemeral": [{"type": "m.typing"}]}),
            ),
            attempt(
                5,
                200,
                &json!({"events": [], "device_lists": {"changed": [], "left": ["@a:b"]}}),
            ),
        ];
        let extra: Vec<bool> = (0..7).map(|at| is_extra(&attempts, at)).collect();
        // The third repeats what was acknowledged.
        assert_eq!(extra, [false, true, false, true, true, false, false]);
    }

    #[test]
    fn an_id_with_two_bodies_is_found() {
        let (one, two) = (json!({"events": [1]}), json!({"events": [2]}));
        let (first, again, other) = (
            attempt(1, 500, &one),
            attempt(1, 200, &one),
            attempt(1, 200, &two),
        );
        assert!(two_bodies(&[first.clone(), again, attempt(2, 200, &two)]).is_none());
        let attempts = [first, other];
        let found = two_bodies(&attempts).expect("two bodies");
        assert_eq!(
            (&found.0.body, &found.1.body),
            (&one.to_string(), &two.to_string())
        );
    }
}
