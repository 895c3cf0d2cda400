//! What is wrong with a registration, before it is used: as it stands, beside others, and in how its service answers.
//!
//! `checks.rs` is the table of everything that can be found, `rules.rs` and `namespaces.rs` find it without the network,
//! `probes.rs` asks the service. No actor lives here: nothing is kept between two examinations.

pub mod checks;
pub mod frameworks;
mod namespaces;
mod probes;
pub mod rules;
pub mod search;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schema::registration::Registration;

use crate::Env;
use crate::appservices::{File, rules::parse};
use crate::transport::Transport;
use checks::Chart;

pub use checks::{Check, Finding, Severity};
pub use frameworks::Framework;

/// A registration that is examined.
#[derive(Debug, Clone)]
pub struct Patient {
    /// The file, as the person named it.
    pub file: String,
    /// What is in it, or why it could not be read.
    pub text: Result<String, String>,
}

impl Patient {
    /// The registration in this file.
    #[must_use]
    pub fn read(path: &Path) -> Patient {
        Patient {
            file: path.display().to_string(),
            text: crate::appservices::read_text(path),
        }
    }

    /// The registration, if it is one.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        parse(self.text.as_ref().ok()?).ok()
    }
}

/// What a registration is examined beside.
#[derive(Debug, Default)]
pub struct Around {
    /// The server's name; without one, namespaces are compared as if any server could be meant.
    pub server_name: Option<String>,
    /// Other registrations, which are not examined themselves.
    pub neighbours: Vec<File>,
    /// The framework that the services are built with, if somebody says.
    pub framework: Option<&'static Framework>,
    /// Keys of registrations that proposals read.
    pub known_keys: Vec<&'static str>,
}

impl Around {
    /// The services in force beside which a registration would be, on a server that runs. One with its id is its version of now.
    #[must_use]
    pub fn in_force(env: &Env, patient: &Patient) -> Around {
        let mine = patient.registration().map(|r| r.id);
        let interests = env.store.interests();
        let others = interests
            .services()
            .iter()
            .filter(|s| mine.as_ref() != Some(&s.id));
        Around {
            server_name: Some(env.settings.server_name.to_string()),
            neighbours: others
                .map(|s| (format!("service {}", s.id), Ok(s.registration.clone())))
                .collect(),
            ..Around::default()
        }
    }
}

/// Examine registrations; with a `patience`, ask their services too, waiting that long for each answer.
///
/// Findings are in the order of the files, the worst first.
pub async fn examine(
    patients: Vec<Patient>,
    around: Around,
    patience: Option<Duration>,
) -> Vec<Finding> {
    let patients = Arc::new(patients);
    let shared = Arc::clone(&patients);
    // Comparing patterns takes time when they are written against it: not on the thread that answers others.
    let rules = tokio::task::spawn_blocking(move || rules::examine(&shared, &around));
    let mut findings = match rules.await {
        Ok(findings) => findings,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    };
    if let Some(patience) = patience {
        let transport = Transport::default();
        for patient in patients.iter() {
            let Some(registration) = patient.registration() else {
                continue;
            };
            let mut chart = Chart::new(&patient.file, &mut findings);
            probes::visit(&mut chart, &transport, &registration, patience).await;
        }
    }
    let place = |file: &str| patients.iter().position(|p| p.file == file);
    findings.sort_by_key(|found| (place(&found.file), found.severity));
    findings
}
