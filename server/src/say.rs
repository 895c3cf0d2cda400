//! Standard output. If it is closed, as after `| head`, what is printed is lost, and the command goes on to its exit code.

use std::io::Write as _;

/// Print a text as it is.
pub(crate) fn print(text: &str) {
    // Ignore a closed pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Print a line.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::say::print(&(format!($($words)*) + "\n"))
    };
}
pub(crate) use say;
