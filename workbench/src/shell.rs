//! Shell commands that may leave something running, such as a homeserver.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::listener::pause;

/// Runs a shell command to its end. What it started in the background may go on, and print.
///
/// # Errors
/// If it does not end in time, or ends with another code than 0; then with what it printed.
pub(crate) async fn run(command: &str, within: Duration) -> Result<(), String> {
    let failed = |e: io::Error| format!("{command}: {e}");
    // Not a pipe: its end comes only when the last process in the background has closed it.
    let (said, errors) = nameless().map_err(failed)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null());
    shell.stdout(Stdio::null()).stderr(errors);
    // A group of its own, so that what the shell waits for can be ended with it.
    let mut shell = shell.process_group(0).spawn().map_err(failed)?;
    let begun = Instant::now();
    let status = loop {
        match shell.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() < within => pause(Duration::from_millis(10)).await,
            None => {
                let group = format!("-{}", shell.id());
                let mut kill = Command::new("kill");
                kill.args(["-KILL", "--", &group])
                    .status()
                    .map_err(failed)?;
                shell.wait().map_err(failed)?;
                return Err(format!("{command}: it did not end within {within:?}"));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let read = said.take(SAID).read_to_end(&mut text);
    read.map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    Err(format!("{command}: {status}\n{}", text.trim_end()))
}

/// How much of what a command printed is shown, in bytes.
const SAID: u64 = 4_096;

/// A new file without a name, to read and to write.
fn nameless() -> io::Result<(File, File)> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let name = format!("understudy-shell-{process}-{next}");
    let path = std::env::temp_dir().join(name);
    let write = File::options().write(true).create_new(true).open(&path)?;
    let read = File::open(&path);
    std::fs::remove_file(&path)?;
    Ok((read?, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_command_ends_although_what_it_started_goes_on() {
        let within = Duration::from_secs(60);
        let begun = Instant::now();
        assert_eq!(run("sleep 30 & echo $! >/dev/null", within).await, Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(20));
        let wrong = run("echo no >&2; exit 3", within).await;
        assert_eq!(
            wrong,
            Err("echo no >&2; exit 3: exit status: 3\nno".to_owned())
        );
        // What the shell waits for ends with it.
        let file = std::env::temp_dir().join(format!("understudy-late-{}", std::process::id()));
        let slow = format!("sleep 1; touch {}", file.display());
        let late = run(&slow, Duration::from_millis(50)).await;
        assert_eq!(late, Err(format!("{slow}: it did not end within 50ms")));
        pause(Duration::from_millis(1_500)).await;
        assert!(!file.exists());
    }
}
