//! The operator's choices about callers: trusted proxies and limits.

use super::address::Network;
use super::limits::buckets::RateLimit;

/// Which proxies are trusted, and which limits apply. By default no proxy is trusted and nothing is limited.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// The proxies that are trusted to report the address of a client.
    pub trusted_proxies: Vec<Network>,
    /// Requests of a caller that change something; `None` is unlimited.
    pub rate_limit: Option<RateLimit>,
    /// Requests of a caller that only read; `None` is unlimited.
    pub read_limit: Option<RateLimit>,
    /// Wrong passwords for an account; `None` is unlimited.
    pub login_limit: Option<RateLimit>,
    /// Claims of a user for keys of one device; `None` is unlimited.
    pub claim_limit: Option<RateLimit>,
    /// Queries to appservices about users, aliases and third-party networks on behalf of a caller; `None` is unlimited.
    pub question_limit: Option<RateLimit>,
    /// Whether appservices are also queried on behalf of callers without a token.
    pub anonymous_questions: bool,
    /// Further `Host` names under which a development server's own pages are served, besides loopback names.
    pub hosts: Vec<String>,
}
