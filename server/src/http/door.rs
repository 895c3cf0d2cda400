//! What an operator chooses about callers: whose addresses are believed, and how often each may do what.

use super::address::Network;
use super::limits::buckets::RateLimit;

/// Which proxies are trusted, and which limits apply. By default no proxy is trusted and nothing is limited.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// The proxies that are trusted to report the address of a client.
    pub trusted_proxies: Vec<Network>,
    /// How often a caller may change something; `None` is without limit.
    pub rate_limit: Option<RateLimit>,
    /// How often a caller may read; `None` is without limit.
    pub read_limit: Option<RateLimit>,
    /// How often a wrong password may be tried for an account; `None` is without limit.
    pub login_limit: Option<RateLimit>,
    /// How often a user may claim a key of a device; `None` is without limit.
    pub claim_limit: Option<RateLimit>,
    /// How often services are asked for a caller; `None` is without limit.
    pub question_limit: Option<RateLimit>,
    /// Whether services are also asked for callers without a token.
    pub anonymous_questions: bool,
    /// The names of a development server's own pages, besides those of the loopback address.
    pub hosts: Vec<String>,
}
