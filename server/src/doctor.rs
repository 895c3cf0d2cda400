//! `understudy doctor`: what is found in registrations, for people and for machines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use actors::appservices::{File, read_folder};
use actors::doctor::{Around, Finding, Patient, Severity, examine, frameworks};
use ruma::OwnedServerName;
use serde::Serialize;

use crate::cli::Doctor;
use crate::config::Config;
use crate::mscs;
use crate::options::text;

/// What was found, and how much of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many errors.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// How many notes.
    pub notes: usize,
    /// Everything, in the order of the files, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// A report of these findings.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> Report {
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Report {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            findings,
        }
    }

    /// `1 error, 2 warnings, no notes`
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

    /// The report as a person reads it: a paragraph for each of these files, two lines for each finding.
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

/// Examine the files, print what is found, and fail when it is bad.
pub(crate) async fn run(doctor: Doctor) -> Result<(), String> {
    let (server_name, folder) = match &doctor.config {
        Some(file) => {
            let config = Config::read(file)?;
            (Some(config.server_name), Some(config.appservices))
        }
        None => (doctor.server_name, doctor.appservices),
    };
    if let Some(name) = &server_name {
        OwnedServerName::try_from(name.as_str())
            .map_err(|e| format!("server name {name:?}: {e}"))?;
    }
    let around = Around {
        server_name,
        neighbours: folder.map_or(Ok(Vec::new()), |folder| neighbours(&folder, &doctor.files))?,
        framework: doctor.framework.as_deref().and_then(frameworks::named),
        known_keys: mscs::registration_keys(),
    };
    let patients: Vec<Patient> = doctor.files.iter().map(|f| Patient::read(f)).collect();
    let files: Vec<String> = patients.iter().map(|p| p.file.clone()).collect();
    let patience = (!doctor.offline).then(|| Duration::from_secs(doctor.timeout));
    let report = Report::new(examine(patients, around, patience).await);
    let printed = if doctor.json {
        serde_json::to_string_pretty(&report).map_err(text)? + "\n"
    } else {
        report.text(&files)
    };
    // A closed pipe is its reader's decision.
    let _ = std::io::stdout().write_all(printed.as_bytes());
    if report.errors > 0 || (doctor.strict && report.warnings > 0) {
        return Err(report.summary());
    }
    Ok(())
}

/// The registrations of a folder without those that are examined.
fn neighbours(folder: &Path, examined: &[std::path::PathBuf]) -> Result<Vec<File>, String> {
    let whole = |path: &Path| path.canonicalize().ok();
    let examined: Vec<_> = examined.iter().filter_map(|file| whole(file)).collect();
    let mut files = read_folder(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    files.retain(|(name, _)| whole(&folder.join(name)).is_none_or(|f| !examined.contains(&f)));
    Ok(files)
}
