//! Starts the log, which is written to standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Start the log with this filter, as text or as JSON.
///
/// # Errors
/// The filter is invalid.
pub(crate) fn start_log(filter: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        // One object a line, with the fields of the event beside its message.
        let log = log.json().flatten_event(true);
        log.with_current_span(false).with_span_list(false).init()
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init()
    }
    Ok(())
}
