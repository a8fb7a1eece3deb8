//! What is printed. A reader who went away, as `head` does, is no failure of any seed; a full disk is told once, at
//! the end.

use std::io::{self, Write as _};
use std::sync::Mutex;

/// Why nothing more is printed.
static BROKEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// A line on standard output, unless an earlier one could not be written.
pub(crate) fn line(text: impl AsRef<str>) {
    let mut broken = BROKEN.lock().expect("nobody panics with it");
    if broken.is_none() {
        *broken = writeln!(io::stdout(), "{}", text.as_ref()).err();
    }
}

/// A line on standard error. Where that is closed there is nobody to tell.
pub(crate) fn note(text: impl AsRef<str>) {
    let _nobody_reads_it = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Was everything written that somebody wanted to read?
///
/// # Errors
/// Why not, for people.
pub(crate) fn finish() -> Result<(), String> {
    let flushed = io::stdout().flush().err();
    let broken = BROKEN.lock().expect("nobody panics with it").take().or(flushed);
    match broken {
        None => Ok(()),
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(error) => Err(format!("standard output: {error}")),
    }
}
