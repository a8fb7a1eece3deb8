//! The kinds of faults, the moments that are worth one, and how often each of them happened.

use std::collections::BTreeMap;

/// Declares an enum that can be listed, with what each of its kinds is called.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $what:literal])* $kind:ident => $called:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(
                #[doc = concat!("The kind that is called \"", $called, "\".")]
                $(#[doc = $what])*
                $kind,
            )*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// What it is called.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $called,)*
                }
            }

            /// What its name does not say; empty if its name says it all.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!($($what),*),)*
                }
            }
        }
    };
}

kinds! {
/// A kind of fault.
Kind {
    /// Nothing of a node runs for 1 to 20 election timeouts; what arrives waits.
    Pause => "pauses of 1 to 20 election timeouts",
    /// Its timer has run out long ago when it goes on.
    OverdueTimer => "timers overdue after a pause",
    /// The timer is called many times at once.
    TimerBurst => "bursts of timers",
    /// All nodes crash and restart, over and over.
    Storm => "restart storms",
    /// Two sides that do not hear each other.
    Halves => "partitions into two",
    /// One node, the leader if there is one, and all others.
    Isolation => "isolated leaders",
    /// The leader is cut off until the others have compacted what it was asked last.
    LeftBehind => "leaders left behind",
    /// One side is not heard by the other.
    OneWay => "one-way partitions",
    /// Two sides that share one node.
    Bridge => "bridges",
    /// Each node has only two neighbours, or one.
    Chain => "chains",
    /// Each node has a majority, and each another one.
    Majorities => "rings of majorities",
    /// Any links.
    Links => "cuts of any links",
    /// A link is up and down, each for 50 to 500 ms.
    Flap => "flapping links",
    /// Nobody writes for a while; when all logs are the same, links are cut.
    Lull => "lulls",
    /// A link is slow for a while.
    SlowLink => "slow links",
    /// A message arrives seconds later, after others that were sent later.
    Late => "late messages",
    /// And its sender or its receiver has another life when it arrives.
    LateAcrossRestart => "late messages across a restart",
    /// A clock jumps ahead.
    ClockJump => "clock jumps",
    /// A clock jumps ahead, several times in a row.
    ClockBurst => "bursts of clock jumps",
    /// A clock goes at another pace than before.
    ClockPace => "clocks that change their pace",
    /// A clock goes at less than 0.8 or more than 1.25 times the pace of time.
    ClockWrong => "clocks that are wrong by a lot",
    /// Several disks that are full at once have refused something for it.
    FullDisks => "several full disks at once",
    /// A leader waits for a sync longer than an election timeout.
    SlowLeaderDisk => "slow disks of leaders",
    SectorStale => "stale sectors",
    SectorMisplaced => "misplaced sectors",
    SectorUnreadable => "unreadable sectors",
    SectorBad => "bits, bytes and sectors changed",
    FileMissing => "files missing",
    FileRenamed => "files renamed",
    FileTruncated => "files truncated",
    FileEmpty => "files emptied",
    /// A copy of a file under another name.
    FileExtra => "extra files",
    /// What some earlier process left behind.
    FileLeftover => "leftover files",
    /// An older copy of a file in its place.
    FileOlder => "older files put back",
    /// A start that failed is undone: the whole disk is what it was before.
    ImageRestored => "disk images put back",
    /// The cluster has seven voters.
    Grown => "clusters grown to seven voters",
    /// The cluster has one voter.
    Shrunk => "clusters shrunk to one voter",
    ReplacedWhileDown => "voters replaced while another is down",
    LeaderRemoved => "leaders removed",
    /// A node came back under a new number.
    ReAdded => "nodes back under a new number",
    /// Asked for when somebody fetches a snapshot, and taken on.
    ChangeDuringSnapshot => "changes while a snapshot is fetched",
    /// Requests for a snapshot, from all sides.
    SnapshotStorm => "storms of snapshot requests",
    /// Back before anyone has noticed, it is asked again what it was asked last.
    BackAtOnce => "crashes of nodes that are back at once",
    WrongGroup => "messages of another group",
    UnknownSender => "messages of unknown senders",
    /// Of a node that is gone, or in no configuration of the receiver.
    RemovedSender => "messages of removed nodes",
    StaleIncarnation => "messages of a stale incarnation",
    AbsurdTerm => "messages of an absurd term",
    /// Entries that leave out an index, or fall in term.
    EntryGaps => "entries with gaps",
    /// What a leader says, of a term of which the receiver knows another leader.
    SecondLeader => "messages of a second leader",
    /// A message that was said once is said again.
    Replay => "replays",
    /// What is broken for ever while the others must make progress.
    DownForEver => "down for ever",
    PausedForEver => "paused for ever",
    DeafForEver => "deaf for ever",
    MuteForEver => "mute for ever",
    FlappingForEver => "flapping for ever",
    FullForEver => "with a full disk for ever",
    SlowForEver => "with a slow disk for ever",
    StaleForEver => "replaying for ever",
}
}

kinds! {
/// A moment at which a fault is worth most.
Moment {
    /// A vote is durable, and nobody knows.
    VoteUnsent => "a vote is durable and unsent",
    JointBegun => "a joint phase begins",
    JointEnded => "a joint phase ends",
    JointCommitted => "something is committed in a joint phase",
    TransferStarted => "a transfer starts",
    TimeoutNowSent => "TimeoutNow is sent",
    ReadRoundOpen => "a read round is open",
    Committed => "something is committed",
    /// A snapshot is durable, and the log not yet compacted.
    SnapshotCut => "a snapshot is durable and the log not compacted",
    Compacted => "the log is to be compacted",
    SnapshotFetched => "a snapshot is being fetched",
    SnapshotInstalled => "a snapshot was installed",
    Promoting => "a learner is promoted",
    VoteRefused => "a vote is refused for a leader's sake",
    PeerReborn => "a peer is back with another disk",
}
}

impl Moment {
    /// Those that come again and again are let pass more often than those that are rare.
    pub(super) const fn rarity(self) -> f64 {
        match self {
            Self::Committed | Self::ReadRoundOpen => 0.1,
            Self::VoteUnsent => 0.2,
            Self::VoteRefused | Self::SnapshotFetched | Self::SnapshotCut | Self::Compacted => 1.0,
            Self::PeerReborn => 12.0,
            _ => 3.0,
        }
    }
}

/// How often what happened.
pub type Counts<K> = BTreeMap<K, u64>;

/// Adds up.
pub(super) fn add<K: Ord + Copy>(counts: &mut Counts<K>, others: &Counts<K>) {
    for (&kind, count) in others {
        *counts.entry(kind).or_default() += count;
    }
}
