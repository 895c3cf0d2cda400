//! The report of an examination, as text for operators and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::checks::{Finding, Severity};

/// The findings and their counts.
#[derive(Debug, Serialize)]
pub struct DoctorReport {
    /// Number of findings that are errors.
    pub errors: usize,
    /// Number of findings that are warnings.
    pub warnings: usize,
    /// Number of findings that are notes.
    pub notes: usize,
    /// All findings, in the order of the files; those of a file with the worst first.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// Count these findings.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> DoctorReport {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        DoctorReport {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            findings,
        }
    }

    /// The counts as text: `1 error, 2 warnings, no notes`.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |number: usize, what: &str| match number {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        [
            count(self.errors, "error"),
            count(self.warnings, "warning"),
            count(self.notes, "note"),
        ]
        .join(", ")
    }

    /// The report as text: a paragraph for each of these files, with two lines for each finding.
    #[must_use]
    pub fn text(&self, files: &[String]) -> String {
        let mut out = String::new();
        for file in files {
            let found: Vec<&Finding> = self.findings.iter().filter(|f| f.file == *file).collect();
            let fine = if found.is_empty() { ": fine" } else { "" };
            // Writing to a string does not fail.
            let _ = writeln!(out, "{file}{fine}");
            for finding in found {
                let severity = match finding.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                    Severity::Note => "note",
                };
                let Finding {
                    code, what, advice, ..
                } = finding;
                let _ = writeln!(out, "  {severity:7}  {code}: {what}\n           {advice}");
            }
        }
        let _ = writeln!(out, "{}", self.summary());
        out
    }
}
