//! What a simulated disk shares and forgets: nobody sees it from outside, but campaigns live of it.

use std::sync::Arc;

use super::{Disk, SimDisk};
use crate::format::SECTOR_BYTES;

/// Are these the same bytes in memory?
fn share(disk: &SimDisk, other: &SimDisk, name: &str) -> bool {
    let (state, others) = (disk.state(), other.state());
    let file = state.names[name];
    Arc::ptr_eq(&state.files[&file], &others.files[&file])
}

/// Forks and power cuts take no memory for files of which nothing is unsynced.
#[test]
fn what_does_not_change_is_shared() {
    let disk = SimDisk::new(1);
    for name in ["settled", "synced", "written"] {
        disk.put(name, vec![1; 2 * SECTOR_BYTES]);
    }
    for (name, synced) in [("synced", true), ("written", false)] {
        let file = disk.open(name).unwrap();
        file.write_at(&[2; SECTOR_BYTES], 0).unwrap();
        if synced {
            file.sync().unwrap();
        }
    }
    let fork = disk.fork(1);
    assert!(["settled", "synced", "written"].iter().all(|name| share(&disk, &fork, name)));
    fork.forget_cache();
    fork.crash();
    let cut = disk.after_power_cut(1, |_| true);
    for other in [fork, cut] {
        assert!(share(&disk, &other, "settled") && share(&disk, &other, "synced"));
        assert!(!share(&disk, &other, "written"));
    }
}

/// As long as a power cut could bring a file back, or somebody has it open, it is there.
#[test]
fn what_nothing_leads_to_any_more_is_forgotten() {
    let disk = SimDisk::new(1);
    let held = || disk.state().files.len();
    let file = disk.create("file").unwrap();
    disk.sync_directory().unwrap();
    disk.remove("file").unwrap();
    disk.restart();
    assert_eq!(held(), 1, "the name is durable");
    drop(file);
    let other = disk.create("other").unwrap();
    disk.sync_directory().unwrap();
    assert_eq!(held(), 1, "the removal is durable, and nobody has it open");
    disk.remove("other").unwrap();
    disk.sync_directory().unwrap();
    assert_eq!(held(), 1, "it is open");
    drop(other);
    disk.sync_directory().unwrap();
    assert_eq!(held(), 0);
    for _ in 0..10 {
        drop(disk.create("another").unwrap());
        disk.crash();
        disk.remove("another").ok();
    }
    disk.sync_directory().unwrap();
    disk.crash();
    assert_eq!(held(), disk.names().len());
}
