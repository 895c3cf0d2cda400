//! The page about one scenario, for reviewers of a proposal: one HTML file that loads nothing, and the same as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::clauses::escaped;
use crate::log::Exchange;
use crate::run::{Outcome, Verdict};
use crate::scenario::Scenario;
use crate::sequence;
use crate::specification::{self, Clause};

/// A proposal that the homeserver had switched on.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The number.
    pub number: u16,
    /// The title.
    pub title: String,
    /// The flags in `GET /versions`.
    pub flags: Vec<String>,
    /// The names that it adds to the wire: unstable and stable.
    pub names: Vec<(String, String)>,
}

/// What the page shows.
pub struct Evidence<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The text of its file.
    pub source: &'a str,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// The program and its version.
    pub program: String,
    /// What makes the run repeatable: the seed, and the time at which the clock stands.
    pub repeatable: String,
    /// The proposals that were switched on.
    pub proposals: Vec<Proposal>,
    /// The command that writes the same files.
    pub command: String,
}

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1d2129;--dim:#5b6472;--line:#d5dae1;--soft:#f4f6f8;--ask:#1f5fbf;--send:#8a3ffc;--good:#17733b;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--bg:#15181d;--fg:#e4e7ec;--dim:#9aa4b2;--line:#343b45;--soft:#1e232a;--ask:#7fb0ff;--send:#c4a2ff;--good:#6fd394;--bad:#ff8f86}}
body{background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:2rem 1rem}
h1{font-size:1.6rem;line-height:1.25}h2{border-top:1px solid var(--line);font-size:1.15rem;margin-top:2.2rem;padding-top:1rem}
a{color:var(--ask)}code,pre,svg text{font-family:ui-monospace,monospace}code,pre{font-size:.82rem}
pre{background:var(--soft);border-radius:6px;overflow-x:auto;padding:.7rem;white-space:pre-wrap;overflow-wrap:anywhere}
table{border-collapse:collapse}td,th{border-bottom:1px solid var(--line);padding:.3rem .9rem .3rem 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{color:var(--dim);font-weight:600}summary{cursor:pointer}.dim{color:var(--dim)}.passed{color:var(--good)}.failed{color:var(--bad)}
.wide{overflow-x:auto}svg .lane{stroke:var(--line)}svg .ask{stroke:var(--ask)}svg .send{stroke:var(--send)}svg .answer{stroke-dasharray:4 3}
svg text{fill:var(--fg);font-size:11.5px}svg .head{font-size:14px;font-weight:600}svg .step{fill:var(--dim);font-family:system-ui,sans-serif}
svg .bar{fill:var(--soft)}svg marker path{fill:var(--dim)}
";

/// Whether a name stands in a text, not as part of a longer one.
fn occurs(text: &str, name: &str) -> bool {
    let joins = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    text.match_indices(name).any(|(at, _)| {
        let after = text[at + name.len()..].chars().next();
        !text[..at].ends_with(joins) && !after.is_some_and(joins)
    })
}

/// Whether a stable name occurs: as a parameter of a query, or as a key. A stable name is often a common word. Beside its unstable form
/// it counts as a key of the whole body alone, and never as a segment of a path.
fn occurs_stable(exchange: &Exchange, name: &str, beside_unstable: bool) -> bool {
    let query = exchange.line.split_once('?').map_or("", |(_, query)| query);
    let in_query = query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(name));
    let texts = [Some(&exchange.body), exchange.answer.as_ref()];
    in_query
        || texts
            .into_iter()
            .flatten()
            .any(|text| match beside_unstable {
                false => text.contains(&format!("\"{name}\":")),
                true => {
                    // The answer begins with its status.
                    let json = text.find('{').map_or("", |at| &text[at..]);
                    let body = serde_json::from_str::<Value>(json).unwrap_or_default();
                    body.get(name).is_some()
                }
            })
}

fn verdict(outcome: &Outcome) -> (&'static str, Option<&str>) {
    match &outcome.verdict {
        Verdict::Passed => ("passed", None),
        Verdict::Skipped(why) => ("skipped", Some(why)),
        Verdict::Failed(why) => ("failed", Some(why)),
    }
}

impl Evidence<'_> {
    /// The names that occur in requests and answers: the proposal, the unstable and the stable name, and which of them occur.
    fn names(&self) -> Vec<(u16, &str, &str, &'static str)> {
        let exchanges = self.outcome.exchanges.iter();
        let sent = exchanges.flat_map(|e| [Some(&e.line), Some(&e.body), e.answer.as_ref()]);
        let sent: Vec<&String> = sent.flatten().collect();
        let mut found = Vec::new();
        for proposal in &self.proposals {
            for (unstable, stable) in &proposal.names {
                let has_unstable = sent.iter().any(|text| occurs(text, unstable));
                let mut exchanges = self.outcome.exchanges.iter();
                let has_stable = exchanges.any(|e| occurs_stable(e, stable, has_unstable));
                let form = match (has_unstable, has_stable) {
                    (true, true) if unstable != stable => "both",
                    (true, _) => "unstable",
                    (false, true) => "stable",
                    (false, false) => continue,
                };
                found.push((proposal.number, unstable.as_str(), stable.as_str(), form));
            }
        }
        found
    }

    /// The same as the page, for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let (verdict, reason) = verdict(self.outcome);
        let proposals = self.proposals.iter();
        let proposals = proposals
            .map(|p| json!({"number": p.number, "title": p.title, "unstable_features": p.flags}));
        let names = self.names().into_iter().map(|(number, unstable, stable, form)| {
            json!({"proposal": number, "unstable": unstable, "stable": stable, "on_the_wire": form})
        });
        json!({
            "title": self.scenario.head.title, "verdict": verdict, "reason": reason, "program": self.program,
            "repeatable": self.repeatable, "command": self.command, "clauses": self.scenario.head.spec,
            "proposals": proposals.collect::<Vec<_>>(), "names": names.collect::<Vec<_>>(),
            "exchanges": self.outcome.exchanges.iter().map(exchange_json).collect::<Vec<_>>(),
        })
    }

    /// The page. It is the same text for the same scenario and program.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escaped(&self.scenario.head.title);
        let (verdict, reason) = verdict(self.outcome);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\n\
             <h1>{title}</h1>\n<p><strong class=\"{verdict}\">{verdict}</strong> <span class=\"dim\">by {}; {}</span></p>\n",
            escaped(&self.program),
            escaped(&self.repeatable)
        );
        // Writing to a text cannot fail, here and below.
        if let Some(why) = reason {
            let _ = writeln!(page, "<pre>{}</pre>", escaped(why));
        }
        let _ = writeln!(
            page,
            "<p>This command writes the same files, byte for byte:</p>\n<pre>{}</pre>",
            escaped(&self.command)
        );
        page.push_str("<h2>Clauses</h2>\n<ul>\n");
        for clause in &self.scenario.head.spec {
            let shown = escaped(clause);
            let _ = match specification::clause(clause) {
                Some((section, Clause(_, _, says))) => {
                    let says = escaped(says);
                    match &section.source {
                        Some(source) => writeln!(
                            page,
                            "<li><a href=\"{}\">{shown}</a>: {says}</li>",
                            escaped(source)
                        ),
                        None => writeln!(page, "<li>{shown}: {says}</li>"),
                    }
                }
                None if clause.starts_with("https://") || clause.starts_with("http://") => {
                    writeln!(page, "<li><a href=\"{shown}\">{shown}</a></li>")
                }
                None => writeln!(page, "<li>{shown}</li>"),
            };
        }
        page.push_str("</ul>\n");
        self.tables(&mut page);
        let _ = writeln!(
            page,
            "<h2>Sequence</h2>\n<p class=\"dim\">Each number leads to the bodies below.</p>\n<div class=\"wide\">{}</div>",
            sequence::svg(self.scenario, &self.outcome.exchanges)
        );
        page.push_str("<h2>Bodies</h2>\n");
        for (number, exchange) in (1..).zip(&self.outcome.exchanges) {
            let head = format!("{number}. {}", sequence::label(exchange));
            let answer = exchange.answer.as_deref().unwrap_or("(no answer yet)");
            let _ = writeln!(
                page,
                "<details id=\"x{number}\"><summary><code>{}</code></summary><pre>{}\n← {}</pre></details>",
                escaped(&head),
                escaped(&exchange.body),
                escaped(answer)
            );
        }
        let _ = writeln!(
            page,
            "<h2>Transcript</h2>\n<details><summary>Everything that was sent and received, step by step</summary><pre>{}</pre></details>",
            escaped(&self.outcome.transcript)
        );
        let _ = writeln!(
            page,
            "<h2>Scenario</h2>\n<pre>{}</pre>\n</body></html>",
            escaped(self.source)
        );
        page
    }

    fn tables(&self, page: &mut String) {
        page.push_str(
            "<h2>Names on the wire</h2>\n<p class=\"dim\">The names of proposals that occur in requests and answers. A stable name can be one \
             that the specification has already.</p>\n\
             <table><tr><th>Proposal</th><th>Unstable name</th><th>Stable name</th><th>On the wire</th></tr>\n",
        );
        for (number, unstable, stable, form) in self.names() {
            let _ = writeln!(
                page,
                "<tr><td>MSC{number}</td><td><code>{}</code></td><td><code>{}</code></td><td>{form}</td></tr>",
                escaped(unstable),
                escaped(stable)
            );
        }
        page.push_str(
            "</table>\n<h2>Proposals that are switched on</h2>\n\
             <table><tr><th>Proposal</th><th>Title</th><th>Flags in <code>/versions</code></th></tr>\n",
        );
        for proposal in &self.proposals {
            let _ = writeln!(
                page,
                "<tr><td>MSC{}</td><td>{}</td><td><code>{}</code></td></tr>",
                proposal.number,
                escaped(&proposal.title),
                escaped(&proposal.flags.join(", "))
            );
        }
        page.push_str("</table>\n");
    }
}

fn exchange_json(exchange: &Exchange) -> Value {
    json!({
        "step": exchange.step, "line": sequence::label(exchange), "body": exchange.body, "answer": exchange.answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_found_inside_a_longer_one() {
        assert!(occurs("{\"a.b\": 1}", "a.b"));
        assert!(occurs("?x=1&a.b=2", "a.b"));
        assert!(!occurs("{\"a.b.c\": 1, \"x_a.b\": 2}", "a.b"));
    }

    #[test]
    fn a_stable_name_beside_its_unstable_form_is_a_key_of_the_body_or_a_parameter() {
        let of = |line: &str, body: &str, answer: &str| Exchange {
            step: String::new(),
            lane: String::new(),
            is_to_bridge: false,
            is_late: false,
            line: line.to_owned(),
            body: body.to_owned(),
            answer: Some(answer.to_owned()),
        };
        let item = r#"{"org.example.batch": "x", "used_up": [{"batch": "x"}]}"#;
        let cases = [
            (of("GET /x/reads", "", "200 {}"), "reads", false, false),
            (of("GET /x?reads=1", "", "200 {}"), "reads", true, true),
            (of("PUT /x", item, "200 {}"), "batch", true, false),
            (of("GET /x", "", r#"200 {"batch": 1}"#), "batch", true, true),
        ];
        for (exchange, name, alone, beside) in cases {
            let found = [false, true].map(|unstable| occurs_stable(&exchange, name, unstable));
            assert_eq!(found, [alone, beside], "{exchange:?}");
        }
    }
}
