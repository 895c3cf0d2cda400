//! The doctor: finds problems of a registration before it is used, by itself, together with others, and in its appservice's
//! answers.
//!
//! `checks.rs` is the table of checks; `rules.rs` and `namespaces.rs` apply them without the network; `probes.rs` sends requests
//! to the appservice. Nothing is stored between two examinations.

mod checks;
mod context;
pub mod frameworks;
mod namespaces;
mod probes;
mod report;
mod rules;
mod search;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actors::transport::Transport;

use checks::Examination;

pub use checks::{Finding, Severity};
pub use context::{ExaminationContext, RegistrationFile};
pub use report::DoctorReport;

/// Examine registrations. With a `timeout`, also send requests to their appservices, and wait that long for each answer.
///
/// The findings are in the order of the files; those of a file with the worst first.
pub async fn examine(
    files: Vec<RegistrationFile>,
    context: ExaminationContext,
    timeout: Option<Duration>,
) -> Vec<Finding> {
    let files = Arc::new(files);
    let shared = Arc::clone(&files);
    // Comparing patterns can take long, so it must not block the thread that answers requests.
    let rules = tokio::task::spawn_blocking(move || rules::examine(&shared, &context));
    let mut findings = match rules.await {
        Ok(findings) => findings,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    };
    if let Some(timeout) = timeout {
        let transport = Transport::default();
        for file in files.iter() {
            let Some(registration) = file.registration() else {
                continue;
            };
            let mut exam = Examination::new(&file.name, &mut findings);
            probes::ask(&mut exam, &transport, &registration, timeout).await;
        }
    }
    let place = |name: &str| files.iter().position(|file| file.name == name);
    findings.sort_by_key(|found| (place(&found.file), found.severity));
    findings
}
