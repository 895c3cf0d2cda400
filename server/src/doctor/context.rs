//! The registration files to examine, and the context to compare them with.

use std::path::Path;

use actors::Env;
use actors::appservices::{File, read_text, rules::parse};
use actors::services::{CarriesInterests, Registration};

use super::frameworks::Framework;

/// A registration file to examine.
#[derive(Debug, Clone)]
pub struct RegistrationFile {
    /// The file's name as the operator gave it.
    pub name: String,
    /// The content of the file, or why it could not be read.
    pub text: Result<String, String>,
}

impl RegistrationFile {
    /// Read a registration file.
    #[must_use]
    pub fn read(path: &Path) -> RegistrationFile {
        RegistrationFile {
            name: path.display().to_string(),
            text: read_text(path),
        }
    }

    /// The parsed registration; `None` if it is invalid.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        parse(self.text.as_ref().ok()?).ok()
    }
}

/// The context that a registration is compared with.
#[derive(Debug, Default)]
pub struct ExaminationContext {
    /// The server's name; without it, namespaces are compared for any server name.
    pub server_name: Option<String>,
    /// Other registrations to compare with; they are not examined themselves.
    pub neighbours: Vec<File>,
    /// The framework that the appservices are built with, if known.
    pub framework: Option<&'static Framework>,
    /// The registration keys that proposals and experiments read.
    pub known_keys: Vec<&'static str>,
}

impl ExaminationContext {
    /// The active appservices of a running server. An active appservice with the same id as the examined registration is left out,
    /// because it is the same appservice.
    #[must_use]
    pub fn in_force(env: &Env, file: &RegistrationFile) -> ExaminationContext {
        let mine = file.registration().map(|r| r.id);
        let interests = env.store.interests();
        let others = interests
            .services()
            .iter()
            .filter(|s| mine.as_ref() != Some(&s.id));
        ExaminationContext {
            server_name: Some(env.settings.server_name.to_string()),
            neighbours: others
                .map(|s| (format!("service {}", s.id), Ok(s.registration.clone())))
                .collect(),
            ..ExaminationContext::default()
        }
    }
}
