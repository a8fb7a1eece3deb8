//! How far the reading of a large log has got, on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use raft_wal::inspect::Inspector;

use super::text;

/// A log that takes less is read before anybody wonders.
const WORTH_SHOWING_BYTES: u64 = 64 << 20;
const PAUSE: Duration = Duration::from_millis(100);

/// A line on standard error that goes when this does.
pub(super) struct Progress {
    shown: Arc<AtomicBool>,
}

impl Progress {
    /// Watches the reads of an inspector, if standard error is a terminal and there is much to read.
    pub(super) fn watch(inspector: Inspector) -> (Inspector, Self) {
        let shown = Arc::new(AtomicBool::new(false));
        let total = inspector.bytes().unwrap_or_default();
        if total < WORTH_SHOWING_BYTES || !io::stderr().is_terminal() {
            return (inspector, Self { shown });
        }
        let (read, next) = (AtomicU64::new(0), Mutex::new(Instant::now() + PAUSE));
        let is_shown = Arc::clone(&shown);
        let inspector = inspector.watched_by(move |bytes| {
            let read = read.fetch_add(bytes, Ordering::Relaxed) + bytes;
            let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
            if Instant::now() < *next {
                return;
            }
            *next = Instant::now() + PAUSE;
            is_shown.store(true, Ordering::Relaxed);
            let percent = u128::from(read) * 100 / u128::from(total);
            // A terminal that is gone need not be told.
            let _ = write!(io::stderr(), "\rreading {}: {} %", text::size(total), percent.min(100));
        });
        (inspector, Self { shown })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.load(Ordering::Relaxed) {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
