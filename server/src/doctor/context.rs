//! What is examined, and what it is compared with.

use std::path::Path;

use actors::Env;
use actors::appservices::{File, read_text, rules::parse};
use actors::services::{CarriesInterests, Registration};

use super::frameworks::Framework;

/// A registration that is examined.
#[derive(Debug, Clone)]
pub struct RegistrationFile {
    /// The name of the file, as its operator wrote it.
    pub name: String,
    /// What is in it, or why it could not be read.
    pub text: Result<String, String>,
}

impl RegistrationFile {
    /// The registration in this file.
    #[must_use]
    pub fn read(path: &Path) -> RegistrationFile {
        RegistrationFile {
            name: path.display().to_string(),
            text: read_text(path),
        }
    }

    /// The registration, if it is one.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        parse(self.text.as_ref().ok()?).ok()
    }
}

/// What a registration is compared with.
#[derive(Debug, Default)]
pub struct Context {
    /// The server's name; without one, namespaces are compared as if any server could be meant.
    pub server_name: Option<String>,
    /// Other registrations, which are not examined themselves.
    pub neighbours: Vec<File>,
    /// The framework that the services are built with, if it is named.
    pub framework: Option<&'static Framework>,
    /// Keys of registrations that proposals read.
    pub known_keys: Vec<&'static str>,
}

impl Context {
    /// The services in force on a server that runs. One with the id of the registration is its present version and left out.
    #[must_use]
    pub fn in_force(env: &Env, file: &RegistrationFile) -> Context {
        let mine = file.registration().map(|r| r.id);
        let interests = env.store.interests();
        let others = interests
            .services()
            .iter()
            .filter(|s| mine.as_ref() != Some(&s.id));
        Context {
            server_name: Some(env.settings.server_name.to_string()),
            neighbours: others
                .map(|s| (format!("service {}", s.id), Ok(s.registration.clone())))
                .collect(),
            ..Context::default()
        }
    }
}
