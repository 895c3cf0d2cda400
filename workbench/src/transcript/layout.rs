//! Formats JSON for readers: members keep their order and fill lines of [`WIDTH`] columns.

/// The columns of a line. A single longer value is not broken.
pub const WIDTH: usize = 120;

/// A JSON value as text.
enum Node<'a> {
    /// A string, a number or a literal; or a text that is not JSON.
    Leaf(&'a str),
    /// The members of an object with their keys, or the elements of an array with empty keys.
    Container(char, Vec<(&'a str, Node<'a>)>, char),
}

/// Removes `unsigned` from the events in a JSON text.
pub fn without_unsigned(json: &str) -> String {
    inline(&Node::of(json))
}

/// Formats a heading followed by JSON, indented by `indent` columns.
pub fn lines(head: &str, json: &str, indent: usize) -> String {
    let mut page = Page {
        text: " ".repeat(indent),
        column: indent,
    };
    page.push(head);
    if !json.is_empty() {
        page.push(if head.is_empty() { "" } else { " " });
        page.put(&Node::of(json), indent, 0);
    }
    page.text
}

impl<'a> Node<'a> {
    fn of(json: &'a str) -> Node<'a> {
        if json.starts_with(['{', '[']) {
            Reader(json).node()
        } else {
            Node::Leaf(json)
        }
    }
}

/// Reads well-formed JSON; anything else becomes a leaf.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn node(&mut self) -> Node<'a> {
        match self.0.chars().next() {
            Some('{') => self.container('{', '}'),
            Some('[') => self.container('[', ']'),
            Some('"') => Node::Leaf(self.string()),
            _ => {
                let end = self.0.find([',', '}', ']']).unwrap_or(self.0.len());
                Node::Leaf(self.take(end))
            }
        }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn string(&mut self) -> &'a str {
        let mut escaped = false;
        let end = self.0[1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        self.take(end.map_or(self.0.len(), |at| at + 2))
    }

    fn container(&mut self, open: char, close: char) -> Node<'a> {
        let mut members = Vec::new();
        self.take(1);
        while let Some(next) = self.0.chars().next() {
            if next == close {
                self.take(1);
                break;
            }
            if [',', ' '].contains(&next) {
                self.take(1);
                continue;
            }
            let key = if open == '{' { self.string() } else { "" };
            self.0 = self.0.trim_start_matches([':', ' ']);
            members.push((key, self.node()));
        }
        if members.iter().any(|(key, _)| *key == "\"event_id\"") {
            members.retain(|(key, _)| *key != "\"unsigned\"");
        }
        // Members whose keys are random values came in the order of these values; their names are in the same order in each run.
        if members.iter().any(|(key, _)| key.contains('‹')) {
            members.sort_by_key(|(key, _)| *key);
        }
        Node::Container(open, members, close)
    }
}

struct Page {
    text: String,
    column: usize,
}

impl Page {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn new_line(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.push_str(&" ".repeat(indent));
        self.column = indent;
    }

    /// Writes a value here. `after` is the number of columns that follow on its last line.
    fn put(&mut self, node: &Node<'_>, indent: usize, after: usize) {
        let inline = inline(node);
        let fits = |column: usize, after| column + inline.chars().count() + after <= WIDTH;
        let Node::Container(open, members, close) = node else {
            return self.push(&inline);
        };
        if members.is_empty() || fits(self.column, after) {
            return self.push(&inline);
        }
        self.push(&open.to_string());
        let within = indent + 1;
        let mut is_broken = false;
        for (number, (key, value)) in members.iter().enumerate() {
            let is_last = number + 1 == members.len();
            let after = if is_last { after + 1 } else { 1 };
            let key = if key.is_empty() {
                String::new()
            } else {
                format!("{key}: ")
            };
            let width = key.chars().count() + self::inline(value).chars().count() + after;
            let space = usize::from(number > 0);
            if number > 0 && (is_broken || self.column + space + width > WIDTH) {
                self.new_line(within);
            } else if number > 0 {
                self.push(" ");
            }
            is_broken = self.column + width > WIDTH;
            self.push(&key);
            self.put(value, within, after);
            if !is_last {
                self.push(",");
            }
        }
        self.push(&close.to_string());
    }
}

/// A value on one line.
fn inline(node: &Node<'_>) -> String {
    match node {
        Node::Leaf(text) => (*text).to_owned(),
        Node::Container(open, members, close) => {
            let members = members.iter().map(|(key, value)| {
                let value = inline(value);
                if key.is_empty() {
                    value
                } else {
                    format!("{key}: {value}")
                }
            });
            format!("{open}{}{close}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_on_one_line() {
        let text = r#"{"b":[1,2,{}],"a":"x, \"}","event":{"event_id":"$1","unsigned":{"age":0}}}"#;
        let expected = r#"  {"b": [1, 2, {}], "a": "x, \"}", "event": {"event_id": "$1"}}"#;
        assert_eq!(lines("", &without_unsigned(text), 2), expected);
    }

    #[test]
    fn what_does_not_fit_fills_lines() {
        let long = "x".repeat(50);
        let text = format!(r#"{{"a":"{long}","b":{{"c":"{long}","d":"{long}"}},"e":1}}"#);
        let laid = lines("", &text, 2);
        let widths: Vec<usize> = laid.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width <= WIDTH), "{laid}");
        let joined: String = laid.split_whitespace().collect();
        assert_eq!(joined, text, "nothing is lost");
    }

    #[test]
    fn members_with_named_keys_are_in_the_order_of_the_names() {
        let expected = r#"{"LAPTOP": 2, "‹key 1›": 1}"#;
        for json in [r#"{"‹key 1›":1,"LAPTOP":2}"#, r#"{"LAPTOP":2,"‹key 1›":1}"#] {
            assert_eq!(lines("", json, 0), expected);
        }
    }

    #[test]
    fn what_is_no_json_stays_as_it_is() {
        assert_eq!(
            lines("← 404", "Cannot find this", 0),
            "← 404 Cannot find this"
        );
        assert_eq!(lines("← 200", "", 0), "← 200");
    }
}
