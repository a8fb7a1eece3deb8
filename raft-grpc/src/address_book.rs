//! Where the members can be reached. A member's number says who it is; its address is data, which may
//! change: every node tells its own when it starts, and all tell each other what they know, whenever a
//! stream begins or something is new. What a member says of itself counts more than what others say.
//!
//! Nothing of this decides who is a member: that is in the log. A wrong address costs a refused greeting,
//! so the book is kept in a file of plain text for the next start, and written without any care for power
//! cuts: what is lost is learned again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use raft_core::NodeId;
use tokio::sync::watch;

use crate::config::is_address;
use crate::wire;

/// The file in the data directory.
const FILE: &str = "ADDRESSES";

/// How many members a book can hold: more than any cluster has.
const ENTRIES_MAX: usize = 1024;

/// The longest address and the longest note.
const ADDRESS_BYTES_MAX: usize = 300;
pub(crate) const NOTE_BYTES_MAX: usize = 256;

/// What is known of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `host:port`.
    pub(crate) address: String,
    /// What the member wants others to know, such as where its clients go. Not for this crate.
    pub(crate) note: String,
    /// The greatest one counts.
    pub(crate) version: u64,
    /// The random number of its data directory, as this node has seen it; zero if it has not. Told to nobody.
    pub(crate) directory: u128,
}

/// Everything that is known.
#[derive(Debug)]
pub(crate) struct AddressBook {
    own: NodeId,
    entries: Mutex<BTreeMap<NodeId, Entry>>,
    saver: Saver,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

impl AddressBook {
    /// What the last run knew, what the configuration says about those of whom it knew nothing, and this
    /// node's own address: if it is to be told, newer than whatever it said before. `now_ms`, milliseconds
    /// since the epoch, makes that so even if the file is lost.
    pub(crate) fn open(
        data_dir: &Path,
        own: NodeId,
        entry: Entry,
        configured: &BTreeMap<NodeId, String>,
        now_ms: Option<u64>,
    ) -> Self {
        let path = data_dir.join(FILE);
        let mut entries = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text),
            Err(_) => BTreeMap::new(), // The first start, or it is lost.
        };
        for (&id, address) in configured {
            let entry = entries.entry(id).or_default();
            if entry.version == 0 {
                entry.address.clone_from(address); // Nobody has told anything else.
            }
        }
        let before = entries.get(&own).map_or(0, |entry| entry.version);
        let version = now_ms.map_or(before, |now| now.max(before.saturating_add(1)));
        entries.insert(own, Entry { version, ..entry });
        let (saver, changes) = (Saver::start(own, path), watch::Sender::new(0));
        let book = Self { own, entries: Mutex::new(entries), saver, changes };
        book.save(&book.entries());
        book
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        // Whole after every statement: a panic elsewhere changes nothing.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a member.
    pub(crate) fn get(&self, id: NodeId) -> Option<Entry> {
        self.entries().get(&id).cloned()
    }

    /// Everyone that is known, member or not.
    pub(crate) fn all(&self) -> BTreeMap<NodeId, Entry> {
        self.entries().clone()
    }

    /// Tells of every change from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// An operator says where a node is to be found, and perhaps what should be known about it. It counts
    /// until the node itself says something else.
    pub(crate) fn set(&self, id: NodeId, address: &str, note: &str) {
        let mut entries = self.entries();
        let known = entries.get(&id).cloned().unwrap_or_default();
        let note = if note.is_empty() { known.note.clone() } else { note.to_owned() };
        if id == self.own || (known.address == address && known.note == note) {
            return;
        }
        let version = known.version.saturating_add(1);
        entries.insert(id, Entry { address: address.to_owned(), note, version, ..known });
        self.changed(&entries);
    }

    /// Takes over what another node knows better. What makes no sense is passed over: it is no reason not to
    /// listen to that node.
    pub(crate) fn merge(&self, told: Vec<wire::Member>) {
        let mut entries = self.entries();
        let mut is_new = false;
        for wire::Member { node, address, note, version } in told {
            let Some(id) = NodeId::new(node).filter(|_| is_sound(&address, &note)) else {
                continue;
            };
            let known = entries.get(&id);
            if known.is_some_and(|known| known.version >= version)
                || (known.is_none() && entries.len() >= ENTRIES_MAX)
            {
                continue;
            }
            is_new = true;
            if id != self.own {
                let directory = known.map_or(0, |known| known.directory);
                entries.insert(id, Entry { address, note, version, directory });
            } else if let Some(own) = entries.get_mut(&id) {
                // Its clock was ahead then: nobody knows better where this node is than itself.
                own.version = version.saturating_add(1);
            }
        }
        if is_new {
            self.changed(&entries);
        }
    }

    /// Is this, as far as is known, the data directory of that node?
    pub(crate) fn is_directory(&self, id: NodeId, directory: u128) -> bool {
        let known = self.entries().get(&id).map_or(0, |entry| entry.directory);
        known == 0 || known == directory
    }

    /// The data directory of a node that was let in.
    pub(crate) fn note_directory(&self, id: NodeId, directory: u128) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&id)
            && std::mem::replace(&mut entry.directory, directory) != directory
        {
            self.save(&entries);
        }
    }

    /// These nodes may come with new data directories.
    pub(crate) fn forget_directories(&self, which: impl Fn(NodeId) -> bool) {
        let mut entries = self.entries();
        let mut changed = false;
        for (_, entry) in entries.iter_mut().filter(|(id, _)| which(**id)) {
            changed |= std::mem::take(&mut entry.directory) != 0;
        }
        if changed {
            self.save(&entries);
        }
    }

    /// The same for others.
    pub(crate) fn to_wire(&self) -> Vec<wire::Member> {
        let member = |(id, entry): (&NodeId, &Entry)| wire::Member {
            node: id.get(),
            address: entry.address.clone(),
            note: entry.note.clone(),
            version: entry.version,
        };
        self.entries().iter().map(member).collect()
    }

    fn changed(&self, entries: &BTreeMap<NodeId, Entry>) {
        self.save(entries);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn save(&self, entries: &BTreeMap<NodeId, Entry>) {
        if let Some((texts, _)) = &self.saver.0 {
            let _ = texts.send(format(entries)); // If the thread has ended, the next run learns again.
        }
    }
}

/// Writes the file on a thread of its own: nobody who looks something up waits for the disk.
#[derive(Debug)]
struct Saver(Option<(mpsc::Sender<String>, JoinHandle<()>)>);

impl Saver {
    fn start(own: NodeId, path: PathBuf) -> Self {
        let (texts, queue) = mpsc::channel::<String>();
        let work = move || {
            while let Ok(text) = queue.recv() {
                let newest = queue.try_iter().last().unwrap_or(text);
                let temporary = path.with_extension("tmp");
                let written = std::fs::write(&temporary, newest)
                    .and_then(|()| std::fs::rename(&temporary, &path));
                if let Err(error) = written {
                    tracing::debug!(node = %own, "cannot write {}: {error}", path.display());
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("addresses-{own}")).spawn(work);
        Self(thread.ok().map(|thread| (texts, thread)))
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        if let Some((texts, thread)) = self.0.take() {
            drop(texts);
            let _ = thread.join();
        }
    }
}

pub(crate) fn is_sound(address: &str, note: &str) -> bool {
    address.len() <= ADDRESS_BYTES_MAX && is_address(address) && is_note(note)
}

/// Can this be a note?
pub(crate) fn is_note(note: &str) -> bool {
    note.len() <= NOTE_BYTES_MAX && !note.chars().any(char::is_control)
}

/// A line for each: number, version, directory, address, note.
fn format(entries: &BTreeMap<NodeId, Entry>) -> String {
    let mut text = String::new();
    for (id, Entry { address, note, version, directory }) in entries {
        // Into a string: never fails.
        let _ = writeln!(text, "{} {version} {directory:x} {address} {note}", id.get());
    }
    text
}

fn parse(text: &str) -> BTreeMap<NodeId, Entry> {
    let line = |line: &str| {
        let mut parts = line.splitn(5, ' ');
        let id = parts.next()?.parse().ok().and_then(NodeId::new)?;
        let version = parts.next()?.parse().ok()?;
        let directory = u128::from_str_radix(parts.next()?, 16).ok()?;
        let (address, note) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        is_sound(&address, &note).then_some((id, Entry { address, note, version, directory }))
    };
    text.lines().filter_map(line).take(ENTRIES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn open(dir: &Path, own: u64, now_ms: u64) -> AddressBook {
        let configured = [1, 2].map(|number| (id(number), format!("configured:{number}"))).into();
        let entry = Entry { address: format!("own:{own}"), ..Entry::default() };
        AddressBook::open(dir, id(own), entry, &configured, Some(now_ms))
    }

    fn address(book: &AddressBook, number: u64) -> String {
        book.get(id(number)).unwrap().address
    }

    #[test]
    fn each_knows_itself_best_and_the_newest_counts() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (one, two) = (open(dirs[0].path(), 1, 10), open(dirs[1].path(), 2, 20));
        assert_eq!((address(&one, 1), address(&one, 2)), ("own:1".into(), "configured:2".into()));
        let mut watch = one.watch();
        one.merge(two.to_wire());
        assert_eq!((address(&one, 1), address(&one, 2)), ("own:1".into(), "own:2".into()));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        one.merge(two.to_wire());
        assert!(!watch.has_changed().unwrap(), "nothing is new");
        // An operator's word counts, until the node itself has its say.
        one.set(id(2), "operator:2", "");
        two.merge(one.to_wire());
        assert_eq!(address(&two, 2), "own:2");
        one.merge(two.to_wire());
        assert_eq!(address(&one, 2), "own:2");
    }

    #[test]
    fn a_start_knows_what_the_last_one_knew_and_says_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        let book = open(dir.path(), 1, 1000);
        book.set(id(3), "operator:3", "as told");
        let before = book.get(id(1)).unwrap().version;
        drop(book);
        // The clock went back meanwhile.
        let book = open(dir.path(), 1, 5);
        assert_eq!(address(&book, 3), "operator:3");
        assert_eq!(book.get(id(3)).unwrap().note, "as told");
        assert!(book.get(id(1)).unwrap().version > before);
    }

    #[test]
    fn nonsense_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "7 x\nno\n\n3 4 ff there:3 \n0 1 0 a:1 \n").unwrap();
        let book = open(dir.path(), 1, 1000);
        assert_eq!(address(&book, 3), "there:3");
        let member = |node, address: &str, note: &str| wire::Member {
            node,
            address: address.into(),
            note: note.into(),
            version: u64::MAX,
        };
        book.merge(vec![
            member(0, "zero:1", ""),
            member(4, "no port", ""),
            member(5, "there:5", "a\nb"),
            member(6, "there:6", &"x".repeat(NOTE_BYTES_MAX + 1)),
            member(8, "there:8", "fine"),
        ]);
        assert_eq!(book.all().into_keys().collect::<Vec<_>>(), [1, 2, 3, 8].map(id));
        // Whoever fills it up with inventions cannot make it grow for ever.
        let many = (10..5000).map(|node| member(node, "there:1", "")).collect();
        book.merge(many);
        assert_eq!(book.all().len(), ENTRIES_MAX);
        assert_eq!(parse(&format(&book.all())), book.all());
    }
}
