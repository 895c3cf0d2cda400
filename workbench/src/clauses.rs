//! The score of a set of scenarios, by the clauses that they name: as text, as JSON, and as JUnit XML.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::run::Verdict;
use crate::scenario::Scenario;

/// What tells the names of one run from those of another.
static RUN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"-[0-9]{13}\b").ok());

/// What a scenario that names no clause is counted under.
const NONE: &str = "(no clause)";

/// How one scenario ended.
#[derive(Debug, Clone)]
struct Played {
    /// The name of the scenario.
    name: String,
    title: String,
    clauses: Vec<String>,
    verdict: Verdict,
}

/// How many scenarios ended in each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Everything came as expected.
    pub passed: usize,
    /// Something else came.
    pub failed: usize,
    /// The homeserver or the machine lacks something.
    pub skipped: usize,
}

impl Count {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
    }

    fn json(self) -> Value {
        json!({"passed": self.passed, "failed": self.failed, "skipped": self.skipped})
    }
}

/// The score of a homeserver.
#[derive(Debug, Clone)]
pub struct Score {
    /// The homeserver: a URL, or a description.
    server: String,
    played: Vec<Played>,
}

impl Score {
    /// The score of a homeserver that has played nothing yet.
    #[must_use]
    pub fn new(server: &str) -> Score {
        Score {
            server: server.to_owned(),
            played: Vec::new(),
        }
    }

    /// Counts a scenario.
    pub fn add(&mut self, scenario: &Scenario, verdict: Verdict) {
        let mut clauses = scenario.head.spec.clone();
        clauses.sort();
        clauses.dedup();
        if clauses.is_empty() {
            clauses.push(NONE.to_owned());
        }
        self.played.push(Played {
            name: scenario.name(),
            title: scenario.head.title.clone(),
            clauses,
            verdict,
        });
    }

    /// The scenarios, each counted once.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut count = Count::default();
        self.played.iter().for_each(|p| count.add(&p.verdict));
        count
    }

    /// The scenarios of each clause. One that names several clauses is counted at each.
    #[must_use]
    pub fn by_clause(&self) -> BTreeMap<&str, Count> {
        let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
        for played in &self.played {
            for clause in &played.clauses {
                counts.entry(clause).or_default().add(&played.verdict);
            }
        }
        counts
    }

    /// A table of the clauses, what did not pass with the reason, and the total.
    #[must_use]
    pub fn text(&self) -> String {
        let clauses = self.by_clause();
        let width = clauses.keys().map(|c| c.len()).max().unwrap_or(0).max(6);
        let mut text = format!(
            "{}\n\n{:width$}  passed  failed  skipped\n",
            self.server, "clause"
        );
        for (clause, count) in clauses {
            let Count {
                passed,
                failed,
                skipped,
            } = count;
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{clause:width$}  {passed:6}  {failed:6}  {skipped:7}");
        }
        text.push('\n');
        for Played { name, verdict, .. } in &self.played {
            let _ = match verdict {
                Verdict::Passed => Ok(()),
                Verdict::Skipped(why) => writeln!(text, "skipped  {name}\n{why}"),
                Verdict::Failed(why) => writeln!(text, "FAILED   {name}\n{}\n", indented(why)),
            };
        }
        let count = self.total();
        let _ = writeln!(
            text,
            "{} passed, {} failed, {} skipped",
            count.passed, count.failed, count.skipped
        );
        text
    }

    /// The same as two tables in Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let count = self.total();
        let mut text = format!(
            "{}: {} scenarios passed, {} failed, {} were skipped.\n\n| clause | passed | failed | skipped |\n|---|---|---|---|\n",
            self.server, count.passed, count.failed, count.skipped
        );
        for (clause, count) in self.by_clause() {
            let Count {
                passed,
                failed,
                skipped,
            } = count;
            let _ = writeln!(text, "| {clause} | {passed} | {failed} | {skipped} |");
        }
        let others = self
            .played
            .iter()
            .filter(|played| played.verdict != Verdict::Passed);
        for (i, Played { name, verdict, .. }) in others.enumerate() {
            if i == 0 {
                text.push_str("\n| did not pass | | why |\n|---|---|---|\n");
            }
            let (how, why) = match verdict {
                Verdict::Skipped(why) => ("skipped", why),
                Verdict::Passed => ("passed", name),
                Verdict::Failed(why) => ("failed", why),
            };
            let file = format!("tests/scenarios/{name}.yaml: ");
            let why = why.trim().replace(&file, "");
            let why = why.replace(&format!("{}:", file.trim_end_matches(": ")), "line ");
            let why = match &*RUN {
                Some(run) => run.replace_all(&why, "").into_owned(),
                None => why,
            };
            let lines = why.lines().filter(|line| !line.starts_with("  whole: "));
            let lines = lines.map(|line| {
                let line: String = line.split_whitespace().collect::<Vec<_>>().join(" ");
                let line: String = line.chars().take(200).collect();
                format!("<code>{}</code>", escaped(&line).replace('|', "&#124;"))
            });
            let why = lines.collect::<Vec<_>>().join("<br>");
            let _ = writeln!(text, "| `{name}` | {how} | {why} |");
        }
        text
    }

    /// The score as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let clauses = self.by_clause().into_iter().map(|(clause, count)| {
            let mut row = count.json();
            row["clause"] = clause.into();
            row
        });
        let scenarios = self.played.iter().map(|played| {
            let (verdict, reason) = match &played.verdict {
                Verdict::Passed => ("passed", None),
                Verdict::Skipped(why) => ("skipped", Some(why)),
                Verdict::Failed(why) => ("failed", Some(why)),
            };
            json!({
                "name": played.name, "title": played.title, "clauses": played.clauses,
                "verdict": verdict, "reason": reason,
            })
        });
        json!({
            "server": self.server, "total": self.total().json(),
            "clauses": clauses.collect::<Vec<_>>(), "scenarios": scenarios.collect::<Vec<_>>(),
        })
    }

    /// The score as JUnit XML: a test suite for each clause, a test case for each scenario in it.
    #[must_use]
    pub fn junit(&self) -> String {
        let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        let _ = writeln!(xml, "<testsuites name=\"{}\">", escaped(&self.server));
        for (clause, count) in self.by_clause() {
            let Count {
                passed,
                failed,
                skipped,
            } = count;
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">",
                escaped(clause),
                passed + failed + skipped
            );
            let of = |played: &&Played| played.clauses.iter().any(|c| c == clause);
            for played in self.played.iter().filter(of) {
                let (class, name) = (escaped(&played.name), escaped(&played.title));
                let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\">");
                match &played.verdict {
                    Verdict::Passed => {}
                    Verdict::Skipped(why) => {
                        let _ = write!(xml, "<skipped message=\"{}\"/>", escaped(why.trim()));
                    }
                    Verdict::Failed(why) => {
                        let first = why.lines().next().unwrap_or_default();
                        let (first, why) = (escaped(first), escaped(why));
                        let _ = write!(xml, "<failure message=\"{first}\">{why}</failure>");
                    }
                }
                xml.push_str("</testcase>\n");
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("  {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A text inside an element or an attribute of XML or HTML. What [XML 1.0](https://www.w3.org/TR/xml/#charsets) does not allow
/// becomes `�`.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c < ' ' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn score() -> Score {
        let mut score = Score::new("http://h?a&b");
        let add = |score: &mut Score, file: &str, spec: &str, verdict| {
            let text = format!(
                "title: {file} <is> shown\n{spec}people: {{alice: {{}}}}\nsteps:\n- alice: syncs\n"
            );
            let scenario = Scenario::parse(Path::new(file), &text).expect("a scenario");
            score.add(&scenario, verdict);
        };
        add(&mut score, "a.yaml", "spec: [x, y]\n", Verdict::Passed);
        let failed = Verdict::Failed("a:1: \"<\"\nexpected \u{1}".to_owned());
        add(&mut score, "b.yaml", "spec: [y]\n", failed);
        add(
            &mut score,
            "c.yaml",
            "",
            Verdict::Skipped("  no".to_owned()),
        );
        score
    }

    #[test]
    fn each_clause_counts_the_scenarios_that_name_it() {
        let expected = "http://h?a&b\n\nclause       passed  failed  skipped\n\
            (no clause)       0       0        1\n\
            x                 1       0        0\n\
            y                 1       1        0\n\n\
            FAILED   b\n  a:1: \"<\"\n  expected \u{1}\n\nskipped  c\n  no\n\
            1 passed, 1 failed, 1 skipped\n";
        assert_eq!(score().text(), expected);
        let json = score().json();
        assert_eq!(
            json["total"],
            json!({"passed": 1, "failed": 1, "skipped": 1})
        );
        assert_eq!(json["clauses"][2]["clause"], "y");
        assert_eq!(json["scenarios"][1]["verdict"], "failed");
        assert_eq!(json["scenarios"][0]["reason"], Value::Null);
    }

    #[test]
    fn junit_is_escaped() {
        let xml = score().junit();
        for part in [
            "<testsuites name=\"http://h?a&amp;b\">",
            "<testsuite name=\"y\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\">",
            "<testcase classname=\"a\" name=\"a.yaml &lt;is&gt; shown\"></testcase>",
            "<failure message=\"a:1: &quot;&lt;&quot;\">a:1: &quot;&lt;&quot;\nexpected \u{fffd}</failure>",
            "<skipped message=\"no\"/>",
        ] {
            assert!(xml.contains(part), "{part} is in {xml}");
        }
    }
}
