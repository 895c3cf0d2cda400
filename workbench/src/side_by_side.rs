//! The differences between two homeservers, side by side: as text, as JSON, and as a table in Markdown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::compare::{Comparison, Row};

/// The widths of the columns of the text.
const WIDTHS: [usize; 3] = [36, 52, 52];

/// What stands in an empty cell.
const NOTHING: &str = "-";

/// What several scenarios showed about two homeservers.
#[derive(Debug, Clone)]
pub struct Table {
    /// The names of the homeservers.
    pub names: [String; 2],
    /// The scenarios.
    pub scenarios: Vec<Comparison>,
}

impl Table {
    /// How many scenarios showed a difference.
    #[must_use]
    pub fn different(&self) -> usize {
        let all = self.scenarios.iter();
        all.filter(|scenario| !scenario.rows.is_empty()).count()
    }

    /// How many scenarios were compared in at least one step.
    #[must_use]
    pub fn compared(&self) -> usize {
        self.scenarios.iter().filter(|s| s.is_compared).count()
    }

    /// The number of scenarios in each way that one can end.
    #[must_use]
    pub fn total(&self) -> String {
        let (all, different, compared) = (self.scenarios.len(), self.different(), self.compared());
        let ended = self.scenarios.iter().filter(|s| s.ended.is_some()).count();
        let not = match all - compared {
            0 => String::new(),
            not => format!(", {not} not compared"),
        };
        format!(
            "{all} scenarios: {different} differ, {} do not{not}; {ended} ended early",
            compared - different
        )
    }

    /// Three columns: where, and what came on each side.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        for Comparison {
            name,
            title,
            rows,
            ended,
            ..
        } in &self.scenarios
        {
            if rows.is_empty() && ended.is_none() {
                continue;
            }
            let _ = writeln!(text, "{name}: {title}");
            if let Some(why) = ended {
                let _ = writeln!(text, "  ended early on {}", why.replace('\n', " "));
            }
            if !rows.is_empty() {
                let head = [String::new(), self.names[0].clone(), self.names[1].clone()];
                text.push_str(&line(&head));
                text.push_str(&line(&WIDTHS.map(|width| "-".repeat(width))));
            }
            for Row { at, sides } in rows {
                text.push_str(&line(&[at.clone(), cell(&sides[0]), cell(&sides[1])]));
            }
            text.push('\n');
        }
        text + &self.total() + "\n"
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let scenarios = self.scenarios.iter().map(|scenario| {
            let rows = scenario
                .rows
                .iter()
                .map(|row| json!({"at": row.at, "sides": row.sides}));
            json!({
                "name": scenario.name, "title": scenario.title, "compared": scenario.is_compared, "ended_early": scenario.ended,
                "differences": rows.collect::<Vec<_>>(),
            })
        });
        json!({
            "servers": self.names, "different": self.different(), "scenarios": scenarios.collect::<Vec<_>>(),
        })
    }

    /// The same as a table for a book: a heading and a table for each scenario that differs, and a list of those that ended early.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("{}.\n", self.total());
        for Comparison {
            title, rows, name, ..
        } in self.scenarios.iter().filter(|s| !s.rows.is_empty())
        {
            let [left, right] = &self.names;
            let _ = write!(
                text,
                "\n**{}** (`{name}`)\n\n| | {left} | {right} |\n|---|---|---|\n",
                escaped(title)
            );
            for Row { at, sides } in rows {
                let at = at.split('\n').map(code).collect::<Vec<_>>().join("<br>");
                let shown = |side: &String| match cell(side).as_str() {
                    NOTHING => NOTHING.to_owned(),
                    text => text.split('\n').map(code).collect::<Vec<_>>().join("<br>"),
                };
                let _ = writeln!(
                    text,
                    "| {at} | {} | {} |",
                    shown(&sides[0]),
                    shown(&sides[1])
                );
            }
        }
        let mut ended = self
            .scenarios
            .iter()
            .filter_map(|s| s.ended.as_ref().map(|why| (&s.name, why)))
            .peekable();
        if ended.peek().is_some() {
            text.push_str("\nEnded early, because a step could not be played:\n\n");
            for (name, why) in ended {
                let _ = writeln!(text, "- `{name}`: {}", escaped(&why.replace('\n', " ")));
            }
        }
        text
    }
}

fn cell(text: &str) -> String {
    if text.is_empty() { NOTHING } else { text }.to_owned()
}

/// A line of the three columns, as many lines of text as its longest cell needs.
fn line(cells: &[String; 3]) -> String {
    let wrapped: Vec<Vec<String>> = cells
        .iter()
        .zip(WIDTHS)
        .map(|(cell, width)| wrap(cell, width))
        .collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
    let mut text = String::new();
    for i in 0..height {
        let parts = wrapped.iter().zip(WIDTHS).map(|(lines, width)| {
            let part = lines.get(i).map_or("", String::as_str);
            format!("{part:width$}")
        });
        let line = parts.collect::<Vec<_>>().join(" | ");
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    text
}

/// The lines of a text that are at most so many characters long, broken at spaces where that is possible.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut rest: Vec<char> = line.chars().collect();
        while rest.len() > width {
            let space = rest[..width]
                .iter()
                .rposition(|c| *c == ' ')
                .filter(|at| *at > width / 2);
            let end = space.unwrap_or(width);
            lines.push(rest[..end].iter().collect());
            rest.drain(..end + usize::from(space.is_some()));
        }
        lines.push(rest.into_iter().collect());
    }
    lines
}

/// A text as code in a cell of a table.
fn code(text: &str) -> String {
    let plain = escaped(text);
    match text {
        "as expected" => plain,
        _ => format!("<code>{plain}</code>"),
    }
}

/// A text without what Markdown or HTML would read as markup.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '~' | '\\' | '$' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = Row {
            at: "line 7: irc: is sent nothing more".to_owned(),
            sides: [
                "as expected".to_owned(),
                format!("expected nothing, came {} | and more", "x".repeat(50)),
            ],
        };
        let of = |name: &str, rows, ended: Option<&str>| Comparison {
            name: name.to_owned(),
            title: format!("The title of {name}"),
            rows,
            ended: ended.map(str::to_owned),
            is_compared: name != "d",
        };
        Table {
            names: ["one".to_owned(), "two".to_owned()],
            scenarios: vec![
                of("a", vec![row], None),
                of("b", Vec::new(), Some("two: line 3: no clock")),
                of("c", Vec::new(), None),
                of("d", Vec::new(), Some("two: it is down")),
            ],
        }
    }

    #[test]
    fn differences_stand_side_by_side() {
        let text = table().text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "a: The title of a");
        assert_eq!(lines[1], format!("  {:36} | {:52} | two", "", "one"));
        assert_eq!(
            lines[3],
            format!(
                "  {:36} | {:52} | expected nothing, came",
                "line 7: irc: is sent nothing more", "as expected"
            )
            .replace("came", &format!("came {}", "x".repeat(29)))
        );
        assert!(
            text.contains("b: The title of b\n  ended early on two: line 3: no clock\n"),
            "{text}"
        );
        assert!(
            text.ends_with("4 scenarios: 1 differ, 2 do not, 1 not compared; 2 ended early\n"),
            "{text}"
        );
        assert!(!text.contains("The title of c"), "{text}");
    }

    #[test]
    fn tables_of_the_book_have_no_markup_of_values() {
        let markdown = table().markdown();
        assert!(
            markdown.contains(
                "| <code>line 7: irc: is sent nothing more</code> | as expected | <code>expected"
            ),
            "{markdown}"
        );
        assert!(markdown.contains("&#124; and more"), "{markdown}");
        assert_eq!(
            table().json()["scenarios"][0]["differences"][0]["sides"][0],
            "as expected"
        );
    }
}
