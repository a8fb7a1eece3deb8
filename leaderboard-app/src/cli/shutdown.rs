//! When to stop.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Listens from now on. The future resolves at the first SIGTERM or SIGINT, and at the end of standard
/// input if `with_stdin`; a second signal ends the process at once, with exit code 130 or 143.
///
/// # Errors
/// If the system does not let this process listen for signals.
pub(super) fn requested(with_stdin: bool) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (asked, mut first) = mpsc::channel(1);
    if with_stdin {
        let asked = asked.clone();
        // A thread, because a read of standard input cannot be cancelled: it ends with the process.
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = asked.blocking_send("the end of standard input");
        });
    }
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            let (name, exit_code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            signals += 1;
            if signals > 1 {
                tracing::warn!("a second signal, {name}: leaving at once");
                std::process::exit(exit_code);
            }
            let _ = asked.try_send(name);
        }
    });
    Ok(async move {
        match first.recv().await {
            Some(why) => tracing::info!("stopping because of {why}"),
            // The task that listens never ends as long as the runtime runs.
            None => std::future::pending().await,
        }
    })
}
