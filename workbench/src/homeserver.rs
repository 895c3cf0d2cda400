//! What the runner needs of a homeserver, whether it runs in the same process or anywhere else.

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// Why a scenario does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// What was expected and what came.
    Failed(String),
    /// What the homeserver or the machine lacks.
    Skipped(String),
}

impl From<String> for Halt {
    fn from(why: String) -> Halt {
        Halt::Failed(why)
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Failed(why) | Halt::Skipped(why) => f.write_str(why),
        }
    }
}

/// The result of a step.
pub type Done<T = ()> = Result<T, Halt>;

/// What comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a homeserver does while a bridge has a request of it.
pub trait Work: Send + Sync {
    /// Until the result is dropped, the homeserver does not count a request that a bridge holds as work of its own.
    fn parked(&self) -> Box<dyn Any + Send>;

    /// Waits until the homeserver has nothing to do besides.
    fn settled(&self) -> Later<'static, ()>;
}

/// Where a bridge must listen, for a homeserver that knows it already.
#[derive(Debug, Clone)]
pub struct Place {
    /// Host and port.
    pub address: String,
    /// The token of the homeserver, which may send something as soon as the bridge listens.
    pub hs_token: String,
}

/// What a bridge needs to make requests.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The appservice's token.
    pub as_token: String,
    /// The localpart of the appservice's own user.
    pub sender: String,
}

/// How the time of a step passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The homeserver's clock was advanced.
    Advanced,
    /// The homeserver uses real time.
    Real,
}

/// A homeserver.
pub trait Homeserver {
    /// The URL. It may differ after a restart.
    fn base(&self) -> String;

    /// The name.
    fn name(&self) -> String;

    /// Whether the homeserver was started for this scenario alone. If not, people get names that no earlier run has used.
    fn is_fresh(&self) -> bool;

    /// Where this bridge must listen; `None` if that can be chosen.
    ///
    /// # Errors
    /// If the homeserver does not know such a bridge.
    fn place(&self, id: &str) -> Done<Option<Place>>;

    /// The ids of all bridges that the homeserver knows already.
    fn known(&self) -> Vec<String>;

    /// Registers a bridge, and waits until the registration is in force. Returns what it needs to make requests.
    fn register<'a>(
        &'a mut self,
        id: &'a str,
        registration: &'a Value,
    ) -> Later<'a, Done<Registered>>;

    /// Waits until the homeserver has nothing to do. Returns `false` if it cannot say.
    fn settle(&self) -> Later<'_, Done<bool>>;

    /// Advances the clock, if the homeserver has one that can be advanced.
    fn advance(&self, time: Duration) -> Later<'_, Done<Passed>>;

    /// Ends the homeserver, as `SIGKILL` does if `kill`, and starts it again.
    fn restart(&mut self, kill: bool) -> Later<'_, Done>;

    /// See [`Work`]; `None` if the homeserver cannot say.
    fn work(&self) -> Option<Arc<dyn Work>>;

    /// Stops a homeserver that was started for the scenario.
    fn stop(&mut self) -> Later<'_, ()>;
}

/// Starts, or finds, the homeserver for a scenario.
pub trait Homeservers {
    /// The homeserver for a scenario that needs these proposals.
    fn start<'a>(&'a self, mscs: &'a [u16]) -> Later<'a, Done<Box<dyn Homeserver>>>;
}

/// Reads a registration file.
///
/// # Errors
/// If it cannot be read, or is not YAML.
pub fn registration(file: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_yaml_ng::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
}
