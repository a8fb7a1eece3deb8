//! Ctrl-C: the first one stops a campaign, the second one, or one when there is nothing to stop, ends the process.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::out;

/// As shells say it of what SIGINT ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// Was there a Ctrl-C?
pub(crate) struct Interrupt {
    /// The next one ends the process.
    ends: Arc<AtomicBool>,
    seen: Arc<AtomicBool>,
}

impl Interrupt {
    /// From here on the first Ctrl-C sets `stop`.
    pub(crate) fn stops(stop: &Arc<AtomicBool>) -> Self {
        let (ends, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let interrupt = Self { ends: Arc::clone(&ends), seen: Arc::clone(&seen) };
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
            else {
                return; // Then Ctrl-C ends it, as it does without us.
            };
            while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                if ends.swap(true, Ordering::Relaxed) {
                    process::exit(i32::from(EXIT_CODE));
                }
                seen.store(true, Ordering::Relaxed);
                stop.store(true, Ordering::Relaxed);
                out::note("\nno other seed is begun; Ctrl-C once more ends at once");
            }
        });
        interrupt
    }

    pub(crate) fn seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// There is nothing to stop any more.
    pub(crate) fn let_it_end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
