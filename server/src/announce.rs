//! What a development server prints when it is ready: text for a person, or one line of JSON for a program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::appservices::Problem;
use serde_json::json;

use crate::people::Person;
use crate::say::say;

/// What is announced.
pub(crate) struct Announcement {
    pub(crate) address: SocketAddr,
    pub(crate) server_name: String,
    pub(crate) users: Vec<Person>,
    /// The folder of registration files.
    pub(crate) appservices: PathBuf,
    /// The URL of the database.
    pub(crate) database: String,
    /// The registration files that were refused.
    pub(crate) problems: Vec<Problem>,
    /// The time from the start of the process.
    pub(crate) took: Duration,
}

/// Print the server's address, its users and example commands, or the same as one line of JSON.
pub(crate) fn announce(ready: &Announcement, as_json: bool) {
    if as_json {
        say!("{}", line(ready));
        return;
    }
    let (address, took) = (ready.address, ready.took.as_millis());
    say!("understudy is ready at http://{address} after {took} ms");
    say!("  page: http://{address}/_understudy/");
    for person in &ready.users {
        let Person {
            user_id,
            password,
            access_token,
            device_id,
        } = person;
        say!("  {user_id}  password {password}  access token {access_token}  device {device_id}");
    }
    let folder = short(&ready.appservices).display();
    say!("  registrations: drop a file into {folder}");
    for problem in &ready.problems {
        say!("  REGISTRATION NOT TAKEN: {problem}");
    }
    if let Some(person) = ready.users.first() {
        let token = &person.access_token;
        say!(
            "  try: curl -H 'Authorization: Bearer {token}' http://{address}/_matrix/client/v3/account/whoami"
        );
    }
}

/// A path without the present folder, where it is below it.
fn short(path: &Path) -> &Path {
    let present = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(present).unwrap_or(path)
}

/// The announcement as JSON. A program finds everything here that it needs to use the server.
fn line(ready: &Announcement) -> serde_json::Value {
    let base = format!("http://{}", ready.address);
    json!({
        "address": ready.address,
        "development": format!("{base}/_understudy"),
        "base_url": base,
        "server_name": ready.server_name,
        "users": ready.users,
        "appservices": ready.appservices,
        "database": ready.database,
        "problems": ready.problems,
        "pid": std::process::id(),
        "ready_after_ms": ready.took.as_secs_f64() * 1_000.0,
    })
}
