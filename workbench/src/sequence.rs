//! The sequence diagram of a scenario, as SVG inside a page: people at the left, the homeserver, bridges at the right.

use std::fmt::Write as _;

use crate::clauses::escaped;
use crate::log::Exchange;
use crate::scenario::{ActorName, Scenario};

/// The distance of two lanes, in pixels.
const GAP: usize = 340;

/// The space at both sides.
const SIDE: usize = 90;

/// The longest label of an arrow, in characters.
const LABEL: usize = 44;

const SERVER: &str = "server";

/// An exchange as one line.
#[must_use]
pub fn label(exchange: &Exchange) -> String {
    let Exchange { lane, line, .. } = exchange;
    match (exchange.is_late, exchange.is_to_bridge) {
        (true, true) => format!("{lane} answers {line}"),
        (true, false) => format!("{SERVER} answers {lane}: {line}"),
        (false, true) => format!("{SERVER} → {lane}: {line}"),
        (false, false) => format!("{lane} → {line}"),
    }
}

fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The diagram. Each request is a link to `#x` and its number, from 1.
#[must_use]
pub fn svg(scenario: &Scenario, exchanges: &[Exchange]) -> String {
    let bridges = &scenario.head.bridges;
    let owner = |exchange: &Exchange| ActorName::read(&exchange.lane).owner;
    let mut people: Vec<String> = exchanges.iter().map(owner).collect();
    people.retain(|name| !bridges.contains_key(name));
    people.sort();
    people.dedup();
    let mut lanes = people;
    lanes.push(SERVER.to_owned());
    lanes.extend(bridges.keys().cloned());
    let x = |name: &str| lanes.iter().position(|lane| lane == name).unwrap_or(0) * GAP + SIDE;
    let width = (lanes.len() - 1) * GAP + 2 * SIDE;
    let (mut body, mut y, mut step) = (String::new(), 40, "");
    for (number, exchange) in (1..).zip(exchanges) {
        // Writing to a text cannot fail.
        if exchange.step != step {
            step = &exchange.step;
            let _ = writeln!(
                body,
                "<rect class=\"bar\" x=\"0\" y=\"{y}\" width=\"{width}\" height=\"22\" rx=\"4\"/><text class=\"step\" x=\"8\" y=\"{}\">{}</text>",
                y + 15,
                escaped(&cut(step, width / 7))
            );
            y += 44;
        }
        let (near, server) = (x(&owner(exchange)), x(SERVER));
        let (from, to, class) = match exchange.is_to_bridge {
            true => (server, near, "send"),
            false => (near, server, "ask"),
        };
        let middle = usize::midpoint(from, to);
        let mut arrow = |from: usize, to: usize, class: &str, text: &str, y: usize| {
            let to = if to > from { to - 2 } else { to + 2 };
            let _ = writeln!(
                body,
                "<line class=\"{class}\" x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\" marker-end=\"url(#tip)\"/>\
                 <a href=\"#x{number}\"><title>{}</title><text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text></a>",
                escaped(&label(exchange)),
                y - 5,
                escaped(&cut(text, LABEL))
            );
        };
        if !exchange.is_late {
            let is_plain = exchange.is_to_bridge || owner(exchange) == exchange.lane;
            let path = exchange.line.replace("/_matrix/app/v1", "…");
            let text = match is_plain {
                true => format!("{number}  {path}"),
                false => format!("{number}  {}: {path}", exchange.lane),
            };
            arrow(from, to, class, &text, y);
            y += 24;
        }
        if let Some(answer) = &exchange.answer {
            let status = answer.split_whitespace().next().unwrap_or_default();
            let text = match exchange.is_late {
                true => format!("{number}  {status} for {}", exchange.line),
                false => status.to_owned(),
            };
            arrow(to, from, &format!("{class} answer"), &text, y);
            y += 24;
        }
    }
    let mut heads = String::new();
    for lane in &lanes {
        let x = x(lane);
        let _ = write!(
            heads,
            "<line class=\"lane\" x1=\"{x}\" y1=\"28\" x2=\"{x}\" y2=\"{y}\"/>\
             <text class=\"head\" x=\"{x}\" y=\"20\" text-anchor=\"middle\">{}</text>",
            escaped(lane)
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{}\" viewBox=\"0 0 {width} {}\" role=\"img\" \
         aria-label=\"sequence diagram\"><defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n{heads}\n{body}</svg>",
        y + 8,
        y + 8
    )
}
