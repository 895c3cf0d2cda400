//! The configuration file of a long-lived server. `docker/server.toml` shows every setting with its default; a test keeps the two
//! equal.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use actors::wire::Namings;
use serde::Deserialize;

use crate::http::address::Network;
use crate::http::limits::{CLAIMS, LOGINS, QUESTIONS, READS, REQUESTS, RateLimit};

/// The default cost of argon2 for a password: KiB of memory and passes (OWASP's recommendation).
pub const PASSWORD_COST: (u32, u32) = (19_456, 2);

/// The configuration of `understudy serve`. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server's name: the part of its users' ids after the colon. A database belongs to one name.
    pub server_name: String,
    /// The address to listen on.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The address of metrics and health, for operators; none if it is absent.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// `sqlite:PATH` or `postgres://…` (without TLS).
    #[serde(default = "default_database")]
    pub database: String,
    /// The folder that is watched for registration files.
    #[serde(default = "default_appservices")]
    pub appservices: PathBuf,
    /// The ids of appservices that receive copies of to-device messages to users in their non-exclusive namespaces.
    #[serde(default)]
    pub observe: Vec<String>,
    /// The proposals that are switched on, by number, besides those that the specification contains.
    #[serde(default = "default_mscs")]
    pub enabled_mscs: Vec<u16>,
    /// Which names of these proposals are sent: `unstable`, `stable` or `both`.
    #[serde(default)]
    pub msc_names: Namings,
    /// The experiments (see [`experiments`](crate::experiments)) that are switched on, by name.
    #[serde(default)]
    pub experiments: Vec<String>,
    /// Whether users may register without an administrator.
    #[serde(default)]
    pub registration: bool,
    /// Whether a sync without `set_presence` sets the user online.
    #[serde(default = "presence")]
    pub presence: bool,
    /// The default room version: `11` or `12`.
    #[serde(default = "default_room_version")]
    pub default_room_version: String,
    /// The proxies that are trusted to report the address of a client.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Whether appservices are also queried about users and aliases on behalf of callers without a token.
    #[serde(default)]
    pub anonymous_questions: bool,
    /// The limit on requests of a caller that change something; `false` switches it off.
    #[serde(default = "default_rate_limit")]
    pub rate_limit: Limit,
    /// The limit on requests of a caller that only read; `false` switches it off.
    #[serde(default = "default_read_limit")]
    pub read_limit: Limit,
    /// The limit on wrong passwords for an account; `false` switches it off.
    #[serde(default = "default_login_limit")]
    pub login_limit: Limit,
    /// The limit on queries to appservices about users, aliases and third-party networks on behalf of a caller; `false` switches
    /// it off.
    #[serde(default = "default_question_limit")]
    pub question_limit: Limit,
    /// The limit on claims of a user for keys of one device; `false` switches it off.
    #[serde(default = "default_claim_limit")]
    pub claim_limit: Limit,
    /// Logs.
    #[serde(default)]
    pub log: LogSettings,
}

/// A rate limit in the configuration, or none.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a limit is false, or numbers: per_second and burst"
)]
pub enum Limit {
    /// `false`
    Off(bool),
    /// The numbers of the limit.
    On(RateLimit),
}

impl Limit {
    /// The limit, unless it is switched off; `true` means the given default.
    #[must_use]
    pub fn get(self, usual: RateLimit) -> Option<RateLimit> {
        match self {
            Limit::On(limit) => Some(limit),
            Limit::Off(on) => on.then_some(usual),
        }
    }
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// The filter, in the syntax of `tracing-subscriber`.
    #[serde(default = "default_filter")]
    pub filter: String,
    /// `text` or `json`.
    #[serde(default = "default_format")]
    pub format: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            filter: default_filter(),
            format: default_format(),
        }
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 8008).into()
}
fn default_database() -> String {
    "sqlite:understudy.db".to_owned()
}
fn default_appservices() -> PathBuf {
    "appservices".into()
}
fn default_mscs() -> Vec<u16> {
    crate::mscs::by_default_beyond_specification()
}
fn presence() -> bool {
    true
}

fn default_room_version() -> String {
    "11".to_owned()
}
fn default_rate_limit() -> Limit {
    Limit::On(REQUESTS)
}
fn default_read_limit() -> Limit {
    Limit::On(READS)
}
fn default_login_limit() -> Limit {
    Limit::On(LOGINS)
}
fn default_question_limit() -> Limit {
    Limit::On(QUESTIONS)
}
fn default_claim_limit() -> Limit {
    Limit::On(CLAIMS)
}
fn default_filter() -> String {
    "info,ruma_state_res=warn".to_owned()
}
fn default_format() -> String {
    "text".to_owned()
}

impl Config {
    /// Read a configuration file.
    ///
    /// # Errors
    /// One line that names the file, the error, and its place.
    pub fn read(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Config::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| {
            let line = e
                .span()
                .map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", e.message().replace('\n', " "))
        })?;
        for (name, limit) in [
            ("rate_limit", config.rate_limit),
            ("read_limit", config.read_limit),
            ("login_limit", config.login_limit),
            ("question_limit", config.question_limit),
            ("claim_limit", config.claim_limit),
        ] {
            if let Limit::On(RateLimit { per_second, burst }) = limit
                && !(burst >= 1.0 && per_second > 0.0)
            {
                return Err(format!(
                    "{name}: burst is at least 1 and per_second above 0; false is no limit"
                ));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_default() {
        let example =
            Config::parse(include_str!("../../docker/server.toml")).expect("the example is valid");
        let bare = Config::parse("server_name = \"example.org\"").expect("only the name is needed");
        assert_eq!(example, bare);
    }

    #[test]
    fn limits_are_numbers_or_switched_off() {
        let claims = |text: &str| {
            let text = format!("server_name = \"a\"\n{text}");
            let config = Config::parse(&text).expect("a configuration");
            config.claim_limit.get(CLAIMS)
        };
        assert_eq!(claims(""), Some(CLAIMS));
        assert_eq!(claims("claim_limit = true"), Some(CLAIMS));
        assert_eq!(claims("claim_limit = false"), None);
        let chosen = claims("claim_limit = { per_second = 1.0, burst = 2.0 }");
        assert_eq!(chosen.map(|limit| limit.burst), Some(2.0));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "server_name"),
            (
                "server_name = \"a\"\nregistrations = true",
                "line 2: unknown field `registrations`",
            ),
            ("server_name = \"a\"\nlisten = \"nowhere\"", "line 2"),
            (
                "server_name = \"a\"\ntrusted_proxies = [\"10.0.0.0/33\"]",
                "line 2: \"10.0.0.0/33\" is not an address",
            ),
            (
                "server_name = \"a\"\n[claim_limit]\nburst = 5.0",
                "line 2: a limit is false, or numbers",
            ),
            (
                "server_name = \"a\"\nclaim_limit = { per_second = 1.0, burst = 0.5 }",
                "claim_limit: burst",
            ),
            (
                "server_name = \"a\"\nrate_limit = { per_second = -1.0, burst = 5.0 }",
                "rate_limit: burst",
            ),
        ];
        for (text, expected) in cases {
            let why = Config::parse(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
    }
}
