//! What a log writes into the log of the process when it is opened: everything that somebody should look
//! at, each in its level, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use raft_core::Write;
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, WalConfig};
use support::history::{HEADERS, append, cast, cut, log_of, segments};
use support::{command, config, members};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down the events of the thread that it is the default of.
#[derive(Clone, Default)]
struct Scribe(Arc<Mutex<Vec<String>>>);

impl Subscriber for Scribe {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { told: event.metadata().level().to_string(), fields: String::new() };
        event.record(&mut line);
        self.0.lock().unwrap().push(line.told + &line.fields);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The level and the message, and behind them the other fields but for the report.
struct Line {
    told: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.told, " {value:?}").unwrap(),
            "report" => {}
            name => write!(self.fields, ", {name}={value:?}").unwrap(),
        }
    }
}

/// What is said when the directory is opened.
fn said_by(disk: &SimDisk, config: &WalConfig) -> Vec<String> {
    let scribe = Scribe::default();
    tracing::subscriber::with_default(scribe.clone(), || {
        Log::open(Arc::new(disk.for_this_life()), config).unwrap()
    });
    disk.restart();
    std::mem::take(&mut scribe.0.lock().unwrap())
}

fn said(disk: &SimDisk) -> Vec<String> {
    said_by(disk, &config())
}

const OPENED: &str = "INFO opened the log, dir=simulated";

fn flip(disk: &SimDisk, name: &str, at: u64) {
    assert!(disk.damage(name, &Damage::FlipBit { at, bit: 1 }), "{name} at {at}");
}

fn closed(entries: u64) -> (SimDisk, Vec<String>) {
    let (disk, log) = log_of(entries);
    log.close().unwrap();
    disk.restart();
    let names = segments(&disk);
    (disk, names)
}

#[test]
fn of_a_whole_log_nothing_more_is_said() {
    let disk = SimDisk::new(1);
    assert_eq!(said(&disk), [OPENED]);
    assert_eq!(said(&disk), [OPENED]);
}

#[test]
fn what_is_torn_or_was_mended_is_a_warning() {
    let (disk, mut log) = log_of(1);
    log.append(&[Write::detached(None, None, vec![command(2, 2, 600)])]).unwrap();
    let cut = disk.power_cuts(100, 1).find(|cut| {
        let used = cut.disk.read(&segments(&cut.disk)[0]).unwrap();
        let at = HEADERS as usize + 512 + 512 + 1536;
        used[at..at + 512] == [0; 512] && used[at + 512..] != vec![0; used.len() - at - 512][..]
    });
    let torn = "WARN dropped a torn write, never acknowledged, bytes=1024";
    assert_eq!(said(&cut.unwrap().disk), [OPENED, torn]);

    let (disk, names) = closed(10);
    flip(&disk, &names[1], 100);
    let one = "WARN one of the two copies of the header of a segment was damaged, segments=1";
    assert_eq!(said(&disk), [OPENED, one]);
    flip(&disk, "IDENTITY", 20);
    let identity = "WARN one of the two copies of IDENTITY was damaged, and was written again";
    assert_eq!(said(&disk), [OPENED, identity, one]);
    assert_eq!(said(&disk), [OPENED, one], "the identity was written again");
}

#[test]
fn damage_is_an_error_and_says_whether_the_node_has_to_be_careful() {
    let (disk, names) = closed(30);
    flip(&disk, &names[4], HEADERS + 700);
    let place = format!("damage={} at offset {HEADERS}: ", names[4]);
    let told = said(&disk);
    assert_eq!(told.len(), 2, "{told:?}");
    let careful = "ERROR the log was damaged: this node votes with care and leads nobody until it \
                   has been filled up again, ";
    assert!(told[1].starts_with(&format!("{careful}{place}")), "{told:?}");
    assert!(told[1].ends_with("lost=30@2"), "{told:?}");
    // It was told, and is not told again.
    assert_eq!(said(&disk), [OPENED]);

    // Behind a snapshot nothing is lost by damage, whatever was lost before.
    let config = config();
    let mut log = Log::open(Arc::new(disk.for_this_life()), &config).unwrap().log;
    append(&mut log, 2, 13..=16);
    cut(&log, 16);
    log.close().unwrap();
    disk.restart();
    let last = segments(&disk).pop().unwrap();
    flip(&disk, &last, HEADERS + 700);
    let told = said(&disk);
    assert_eq!(told.len(), 2, "{told:?}");
    let put_right = "ERROR the log was damaged, and put right, ";
    assert!(told[1].starts_with(&format!("{put_right}damage={last}")), "{told:?}");
}

/// Who decides alone and accepts a loss has nobody to be careful of.
#[test]
fn an_accepted_loss_is_an_error_too() {
    let disk = SimDisk::new(1);
    let config = WalConfig { membership: members(&[1]), accept_data_loss: true, ..config() };
    let mut log = Log::open(Arc::new(disk.for_this_life()), &config).unwrap().log;
    cast(&mut log, 2);
    append(&mut log, 2, 1..=2);
    log.close().unwrap();
    disk.restart();
    let name = segments(&disk)[0].clone();
    flip(&disk, &name, HEADERS + 1024 + 200);
    let told = said_by(&disk, &config);
    assert_eq!(told.len(), 2, "{told:?}");
    let put_right = format!("ERROR the log was damaged, and put right, damage={name} at offset");
    assert!(told[1].starts_with(&put_right), "{told:?}");
}
