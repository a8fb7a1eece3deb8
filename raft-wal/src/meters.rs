//! What the log tells to whoever collects metrics. Without a recorder all of this costs next to nothing.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

/// The metrics of one log.
pub(crate) struct Meters {
    sync_seconds: Histogram,
    batch_entries: Histogram,
    space_low: Gauge,
    scrubbed_bytes: Counter,
    damages: Counter,
    repairs: Counter,
}

impl Meters {
    /// Those of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        describe();
        let meters = Self {
            sync_seconds: metrics::histogram!("wal_sync_seconds"),
            batch_entries: metrics::histogram!("wal_batch_entries"),
            space_low: metrics::gauge!("wal_space_low"),
            scrubbed_bytes: metrics::counter!("wal_scrubbed_bytes_total"),
            damages: metrics::counter!("wal_damages_total"),
            repairs: metrics::counter!("wal_repairs_total"),
        };
        // So that they are there before anything has happened.
        meters.space(false);
        meters.scrubbed(0, false);
        meters.repairs.increment(0);
        meters
    }

    /// A batch was written and synced.
    pub(crate) fn synced(&self, took: Duration, entries: u64) {
        self.sync_seconds.record(took);
        // Below 2^32, so nothing is lost.
        self.batch_entries.record(entries as f64);
    }

    /// Is the disk full?
    pub(crate) fn space(&self, is_low: bool) {
        self.space_low.set(f64::from(u8::from(is_low)));
    }

    /// So many bytes were read again.
    pub(crate) fn scrubbed(&self, bytes: u64, is_damaged: bool) {
        self.scrubbed_bytes.increment(bytes);
        self.damages.increment(u64::from(is_damaged));
    }

    /// A damaged segment was written again.
    pub(crate) fn repaired(&self) {
        self.repairs.increment(1);
    }
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "wal_sync_seconds",
        Unit::Seconds,
        "How long a batch took to be written and synced"
    );
    describe_histogram!("wal_batch_entries", "Entries that shared one sync");
    describe_gauge!("wal_space_low", "1 while the disk has no room for the next segment");
    describe_counter!(
        "wal_scrubbed_bytes_total",
        Unit::Bytes,
        "Bytes that were read again to see whether they are still what was written"
    );
    describe_counter!("wal_damages_total", "How often reading again found damage");
    describe_counter!("wal_repairs_total", "Damaged segments that were written again");
}
