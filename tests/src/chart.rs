//! Draws the chart of "`/sync` or transactions" and writes the table that the book shows, from the figures of the benchmark.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A measurement of one kind of traffic, to a number of users, with one way of delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The way of delivery.
    pub way: Way,
    /// The number of the appservice's users that receive the traffic.
    pub users: usize,
    /// The server's CPU time for each message sent, in milliseconds.
    pub cpu_ms: f64,
    /// The server's resident memory at the end, in MiB.
    pub memory_mib: f64,
    /// The median time from the request to the receipt, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the same time.
    pub p99_ms: f64,
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// To-device messages, each to one of the users.
    ToDevice,
    /// Events in a room that all of the users are joined to.
    Room,
}

/// A way of delivery to the appservice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A long-polling `/sync` for each user.
    Sync,
    /// One stream of transactions.
    Transactions,
}

/// The file in which the benchmark stores its figures.
#[must_use]
pub fn figures() -> PathBuf {
    book().join("figures/sync-or-transactions.json")
}

/// The files of the book that are generated from the figures, each with its content.
#[must_use]
pub fn made_of(points: &[Point]) -> [(PathBuf, String); 2] {
    let file = |kind: &str| book().join(format!("src/figures/sync-or-transactions.{kind}"));
    [(file("svg"), svg(points)), (file("md"), table(points))]
}

/// The stored figures.
///
/// # Panics
/// If the file is missing or not valid.
#[must_use]
pub fn read() -> Vec<Point> {
    let text = std::fs::read_to_string(figures()).expect("the benchmark left figures");
    serde_json::from_str(&text).expect("figures are JSON")
}

/// The content of the file of figures: one point on each line.
///
/// # Panics
/// Never: a point can always be written as JSON.
#[must_use]
pub fn written(points: &[Point]) -> String {
    let line = |point: &Point| serde_json::to_string(point).expect("a point is JSON");
    let lines: Vec<String> = points.iter().map(line).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec-notes")
}

const TRAFFIC: [(Traffic, &str); 2] = [
    (Traffic::ToDevice, "A to-device message to one of N users"),
    (Traffic::Room, "An event in a room with all N users"),
];

/// The ways with their labels and colours. The colours are readable on white and on black.
const WAYS: [(Way, &str, &str); 2] = [
    (Way::Sync, "N /sync streams", "#d9731a"),
    (Way::Transactions, "one stream of transactions", "#2e86de"),
];

/// The value of a point that a row of panels shows.
type Value = fn(&Point) -> f64;

/// The rows of panels: label with unit, and value.
const ROWS: [(&str, Value); 3] = [
    ("server CPU for each, ms", |p| p.cpu_ms),
    ("median until received, ms", |p| p.p50_ms),
    ("server memory, MiB", |p| p.memory_mib),
];

/// The colour of text and lines.
const INK: &str = "#7a828e";

/// The size of a panel and of the space around it, in pixels.
const WIDTH: f64 = 290.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 62.0;
const ACROSS: f64 = WIDTH + 56.0;
const DOWN: f64 = HEIGHT + 62.0;

/// The decades that contain these values, as exponents of ten.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let logs: Vec<f64> = values.map(f64::log10).collect();
    let least = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let most = logs
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
        .ceil();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "exponents of what was measured"
    )]
    let whole = (least as i32, most as i32);
    (whole.0, whole.1.max(whole.0 + 1))
}

/// The place of a value between two decades, from 0 to 1.
fn share(value: f64, (least, most): (i32, i32)) -> f64 {
    (value.log10() - f64::from(least)) / f64::from(most - least)
}

/// A number with three significant digits at most.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

fn text(out: &mut String, x: f64, y: f64, more: &str, words: &str) {
    writeln!(out, r#"<text x="{x:.1}" y="{y:.1}" {more}>{words}</text>"#).expect("a string");
}

/// The chart as SVG.
#[must_use]
pub fn svg(points: &[Point]) -> String {
    let (width, mut y) = (LEFT + 2.0 * ACROSS, TOP);
    let height = TOP + 3.0 * DOWN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <title>/sync or transactions: the server's costs, and the time until the appservice receives it</title>\n"
    );
    for ((_, name, colour), x) in WAYS.iter().zip([LEFT, LEFT + 160.0]) {
        writeln!(
            out,
            r#"<path d="M{x:.0} 16h24" stroke="{colour}" stroke-width="2.5"/>"#
        )
        .expect("a string");
        text(&mut out, x + 32.0, 20.0, "", name);
    }
    for (row, (label, value)) in ROWS.into_iter().enumerate() {
        let heights = decades(points.iter().map(value));
        for ((traffic, title), x) in TRAFFIC.into_iter().zip([LEFT, LEFT + ACROSS]) {
            let panel = Panel {
                x,
                y,
                widths: decades(points.iter().map(users)),
                heights,
                value,
            };
            if row == 0 {
                text(&mut out, x, y - 14.0, r#"font-weight="600""#, title);
            }
            panel.axes(&mut out, if x > LEFT { "" } else { label });
            let of = |way| {
                points
                    .iter()
                    .filter(move |p| p.traffic == traffic && p.way == way)
            };
            let ends = WAYS.map(|(way, ..)| of(way).next_back().map(value));
            let least = ends.into_iter().flatten().fold(f64::INFINITY, f64::min);
            for ((way, _, colour), end) in WAYS.into_iter().zip(ends) {
                // The number at the end of the upper line is above it, the other one below.
                let above = end.is_some_and(|value| value > least);
                panel.line(&mut out, of(way), colour, above);
            }
        }
        y += DOWN;
    }
    out.push_str("</svg>\n");
    out
}

fn users(point: &Point) -> f64 {
    f64::from(u32::try_from(point.users).expect("not so many"))
}

/// A panel of the chart.
struct Panel {
    x: f64,
    y: f64,
    widths: (i32, i32),
    heights: (i32, i32),
    value: Value,
}

impl Panel {
    fn across(&self, users: f64) -> f64 {
        self.x + 10.0 + share(users, self.widths) * (WIDTH - 20.0)
    }

    fn up(&self, value: f64) -> f64 {
        self.y + HEIGHT - share(value, self.heights) * HEIGHT
    }

    fn axes(&self, out: &mut String, label: &str) {
        for exponent in self.heights.0..=self.heights.1 {
            let (value, places) = (
                10f64.powi(exponent),
                usize::try_from(-exponent).unwrap_or(0),
            );
            let (x, y) = (self.x, self.up(value));
            writeln!(
                out,
                r#"<path d="M{x:.1} {y:.1}h{WIDTH}" stroke="{INK}" stroke-opacity="0.3"/>"#
            )
            .expect("a string");
            text(
                out,
                x - 8.0,
                y + 4.0,
                r#"text-anchor="end""#,
                &format!("{value:.places$}"),
            );
        }
        for exponent in self.widths.0..=self.widths.1 {
            let users = 10f64.powi(exponent);
            let (x, y) = (self.across(users), self.y + HEIGHT);
            writeln!(out, r#"<path d="M{x:.1} {y:.1}v5" stroke="{INK}"/>"#).expect("a string");
            text(
                out,
                x,
                y + 19.0,
                r#"text-anchor="middle""#,
                &format!("{users:.0}"),
            );
        }
        let (x, y) = (self.x + WIDTH / 2.0, self.y + HEIGHT + 36.0);
        text(
            out,
            x,
            y,
            r#"text-anchor="middle""#,
            "N, users of the service",
        );
        let (x, y) = (self.x - 48.0, self.y + HEIGHT / 2.0);
        let turned = format!(r#"text-anchor="middle" transform="rotate(-90 {x:.1} {y:.1})""#);
        if !label.is_empty() {
            text(out, x, y, &turned, label);
        }
    }

    fn line<'a>(
        &self,
        out: &mut String,
        points: impl Iterator<Item = &'a Point>,
        colour: &str,
        above: bool,
    ) {
        let at = |p: &Point| (self.across(users(p)), self.up((self.value)(p)));
        let points: Vec<&Point> = points.collect();
        let path: Vec<String> = points
            .iter()
            .map(|p| at(p))
            .map(|(x, y)| format!("{x:.1} {y:.1}"))
            .collect();
        writeln!(
            out,
            r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2.5"/>"#,
            path.join("L")
        )
        .expect("a string");
        for point in &points {
            let (x, y) = at(point);
            writeln!(
                out,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#
            )
            .expect("a string");
        }
        if let Some(last) = points.last() {
            let (x, y) = at(last);
            let how = format!(r#"text-anchor="end" font-weight="600" fill="{colour}""#);
            let y = if above { y - 9.0 } else { y + 18.0 };
            text(out, x + 6.0, y, &how, &short((self.value)(last)));
        }
    }
}

/// The table as Markdown.
#[must_use]
pub fn table(points: &[Point]) -> String {
    let mut out = String::from(
        "| What is sent | Way | N | Server CPU for each | Memory | p50 / p99 until received |\n|---|---|---:|---:|---:|---:|\n",
    );
    for point in points {
        let what = match point.traffic {
            Traffic::ToDevice => "to-device, to one",
            Traffic::Room => "event, to all",
        };
        let way = match point.way {
            Way::Sync => "`/sync`",
            Way::Transactions => "transactions",
        };
        let (cpu, p50, p99) = (
            short(point.cpu_ms),
            short(point.p50_ms),
            short(point.p99_ms),
        );
        let (users, memory) = (point.users, point.memory_mib);
        writeln!(
            out,
            "| {what} | {way} | {users} | {cpu} ms | {memory:.1} MiB | {p50} / {p99} ms |"
        )
        .expect("a string");
    }
    out
}
