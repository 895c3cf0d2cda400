//! The doctor: what is wrong with a registration before it is used, by itself, beside others, and in how its service answers.
//!
//! `checks.rs` is the table of everything that can be found, `rules.rs` and `namespaces.rs` find it without the network,
//! `probes.rs` asks the service. Nothing is kept between two examinations.

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
pub use context::{Context, RegistrationFile};
pub use report::Report;

/// Examine registrations. With a `timeout`, ask their services too, and wait that long for each answer.
///
/// Findings are in the order of the files, the worst first.
pub async fn examine(
    files: Vec<RegistrationFile>,
    context: Context,
    timeout: Option<Duration>,
) -> Vec<Finding> {
    let files = Arc::new(files);
    let shared = Arc::clone(&files);
    // Patterns can be written so that comparing them takes long: not on the thread that answers requests.
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
