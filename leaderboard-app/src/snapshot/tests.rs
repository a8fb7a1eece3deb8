//! What comes back from a snapshot is the same for ever after; what is no snapshot is refused.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::command::{AddVote, Command};
use crate::leaderboard::tests::{at, vote};
use crate::reply::Reply;

/// Small enough that keys go by number and by age within a few commands.
const LIMITS: Limits = Limits {
    kept_at_least: 3,
    kept_at_most: 6,
    age: Duration::from_millis(20),
    dropped_at_once: 2,
};

/// A command, and how long after the one before it.
type Step = (u64, AddVote);

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let delta = prop_oneof![8 => -3_i64..=3, 1 => Just(Score::MAX.get())];
    let step = (0_u64..12, "[a-e]", delta, prop::option::of("[k-r]"), prop::bool::weighted(0.1))
        .prop_map(|(pause, player, delta, key, elsewhere)| {
            let vote = vote(&player, delta, key.as_deref());
            let board = if elsewhere { BoardId::new("other").unwrap() } else { vote.board };
            (pause, AddVote { board, ..vote })
        });
    prop::collection::vec(step, 0..count)
}

/// A state with two boards, as a later version may have, and its clock.
#[derive(Clone, Debug)]
struct Life {
    leaderboard: Leaderboard,
    index: u64,
    now: u64,
}

impl Life {
    fn new() -> Self {
        let boards = ["zoo", "default"].map(|name| {
            let id = BoardId::new(name).unwrap();
            (id.clone(), Board::new(id))
        });
        let keys = IdempotencyTable::with_limits(LIMITS);
        let leaderboard = Leaderboard::from_parts(BTreeMap::from(boards), keys);
        Self { leaderboard, index: 0, now: 0 }
    }

    fn after(steps: &[Step]) -> Self {
        let mut life = Self::new();
        for step in steps {
            life.apply(step);
        }
        life
    }

    fn apply(&mut self, (pause, vote): &Step) -> Reply {
        self.index += 1;
        self.now += pause;
        let command = Command::AddVote(vote.clone()).encode();
        self.leaderboard.apply_command(at(self.index), Timestamp(self.now), &command)
    }
}

/// The bytes with the hash that belongs to them, in place of the one that they have.
fn sealed(snapshot: &[u8]) -> Vec<u8> {
    let mut bytes = snapshot[..snapshot.len().saturating_sub(HASH_BYTES)].to_vec();
    bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
    bytes
}

/// The same, with the digest that belongs to the state too, if the bytes hold one: so that nothing
/// guards the reader but the reader itself.
fn forged(snapshot: &[u8]) -> Vec<u8> {
    let guarded = &snapshot[..snapshot.len().saturating_sub(2 * HASH_BYTES)];
    let mut bytes = guarded.to_vec();
    let state = read_state(&mut Reader(guarded.get(1..).unwrap_or_default()));
    let digest = state.map_or(0, |state| state.digest().get());
    bytes.extend_from_slice(&digest.to_le_bytes());
    bytes.extend_from_slice(&[0; HASH_BYTES]);
    sealed(&bytes)
}

/// Refused, or a state that goes on without a panic and has exactly this snapshot.
fn refused_or_sound(bytes: &[u8], later: &[Step]) -> Result<bool, TestCaseError> {
    let Ok(leaderboard) = Leaderboard::from_snapshot(bytes) else { return Ok(false) };
    prop_assert_eq!(&leaderboard.to_snapshot()[..], bytes);
    let mut life = Life { leaderboard, index: 1 << 40, now: 1 << 40 };
    for step in later {
        life.apply(step);
    }
    let again = Leaderboard::from_snapshot(&life.leaderboard.to_snapshot()).unwrap();
    prop_assert_eq!(again.digest(), life.leaderboard.digest());
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_comes_back_answers_for_ever_the_same(before in steps(40), later in steps(40)) {
        let mut first = Life::after(&before);
        let snapshot = first.leaderboard.to_snapshot();
        let restored = Leaderboard::from_snapshot(&snapshot).unwrap();
        prop_assert_eq!(restored.digest(), first.leaderboard.digest());
        prop_assert_eq!(restored.to_snapshot(), snapshot);
        let mut second = Life { leaderboard: restored, ..first.clone() };
        for step in &later {
            prop_assert_eq!(second.apply(step), first.apply(step));
            prop_assert_eq!(second.leaderboard.digest(), first.leaderboard.digest());
        }
        prop_assert_eq!(second.leaderboard.keys().len(), first.leaderboard.keys().len());
        prop_assert_eq!(second.leaderboard.to_snapshot(), first.leaderboard.to_snapshot());
    }

    #[test]
    fn any_damage_is_noticed(before in steps(20), place: Index, flip in 1_u8.., cut: Index) {
        let bytes = Life::after(&before).leaderboard.to_snapshot().to_vec();
        let mut damaged = bytes.clone();
        damaged[place.index(bytes.len())] ^= flip;
        prop_assert!(Leaderboard::from_snapshot(&damaged).is_err());
        prop_assert!(Leaderboard::from_snapshot(&bytes[..cut.index(bytes.len())]).is_err());
        let mut longer = bytes;
        longer.push(flip);
        prop_assert!(Leaderboard::from_snapshot(&longer).is_err());
        prop_assert!(Leaderboard::from_snapshot(&sealed(&longer)).is_err());
    }

    /// Bytes whose hash and digest fit, so that they are read to their end.
    #[test]
    fn a_forged_snapshot_is_refused_or_sound(
        before in steps(12),
        writes in prop::collection::vec(
            (any::<Index>(), prop_oneof![0_u64..4, Just(u64::MAX), any::<u64>()], 1_usize..=8),
            0..3,
        ),
        later in steps(12),
    ) {
        let mut bytes = Life::after(&before).leaderboard.to_snapshot().to_vec();
        for (place, value, width) in writes {
            let place = place.index(bytes.len() - 2 * HASH_BYTES - 8);
            bytes[place..place + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        refused_or_sound(&forged(&bytes), &later)?;
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_sound(bytes in prop::collection::vec(0_u8..4, 0..200)) {
        prop_assert!(Leaderboard::from_snapshot(&bytes).is_err());
        let versioned = [&[VERSION][..], &bytes[..]].concat();
        refused_or_sound(&forged(&versioned), &[])?;
    }
}

/// The forgery does what it says: unchanged bytes pass, so the refusals above are the reader's own.
#[test]
fn a_forgery_without_a_change_is_the_snapshot() {
    let life = Life::after(&[(0, vote("a", 1, Some("k"))), (3, vote("b", 2, None))]);
    let snapshot = life.leaderboard.to_snapshot();
    assert_eq!(forged(&snapshot), snapshot);
    assert!(refused_or_sound(&snapshot, &[(0, vote("a", 1, Some("k")))]).unwrap());
}

/// A claim to be longer than any memory costs nothing.
#[test]
fn counts_are_not_believed() {
    let snapshot = Leaderboard::default().to_snapshot();
    let (boards, lines, keys) = (33, 33 + 8 + 8 + 8, 33 + 8 + 8 + 16);
    for place in [boards, lines, keys] {
        let mut bytes = snapshot.to_vec();
        bytes[place..place + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(
            Leaderboard::from_snapshot(&sealed(&bytes)),
            Err(DecodeError::Damaged(_))
        ));
    }
}

/// The bytes up to the digest, with what is wrong in them named.
#[test]
fn what_no_log_leads_to_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = snapshot_of_version_1();
        change(&mut bytes);
        match Leaderboard::from_snapshot(&forged(&bytes)).unwrap_err() {
            DecodeError::Damaged(why) => why,
            other => panic!("{other}"),
        }
    };
    // The board's name from 41, its counts from 49; "b" from 65, its score from 67, its change from 75;
    // "zoë" from 83, her score from 88; the keys from 112 and 189.
    assert_eq!(refused(&|b| b[42] = 0), "a board has no valid name");
    assert_eq!(refused(&|b| b[42] = b'D'), "the board that always exists does not");
    assert_eq!(refused(&|b| b[56] = 0xff), "a board has had more changes than a log can hold");
    assert_eq!(refused(&|b| b[66] = 0x7f), "a player has no valid name");
    assert_eq!(refused(&|b| b[74] = 0x7f), "a score is beyond its bounds");
    for no_change_of_its_own in [0, 1, 4] {
        assert_eq!(
            refused(&|b| b[75] = no_change_of_its_own),
            "a line of a board comes from none of its changes, or not alone"
        );
    }
    assert_eq!(
        refused(&|b| b[88..96].copy_from_slice(&8_i64.to_le_bytes())),
        "the lines of a board are not in order"
    );
    assert_eq!(refused(&|b| drop(b.splice(83..88, *b"\x01b"))), "a board has a player twice");
    assert_eq!(refused(&|b| b[113] = 7), "an idempotency key is not valid");
    assert_eq!(refused(&|b| b[191] = b'1'), "an idempotency key is there twice");
    assert_eq!(refused(&|b| b[156] = 2), "a flag is neither 0 nor 1");
    assert_eq!(
        Leaderboard::from_snapshot(b"\x02").unwrap_err(),
        DecodeError::UnknownVersion(2),
        "whatever a later version looks like"
    );
}

/// `b` has 7, `zoë` −2; two keys, of which one was refused.
fn snapshot_of_version_1() -> Vec<u8> {
    [
        &b"\x01"[..],
        b"\x03\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x14\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0",
        b"\x07default\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01b\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
        b"\x04zo\xc3\xab\xfe\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0",
        b"\x02k1",
        &FINGERPRINT_K1.to_le_bytes(),
        b"\x0a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x02k2",
        &FINGERPRINT_K2.to_le_bytes(),
        b"\x1e\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0",
        b"\x02\x07\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\x1f\0",
        &DIGEST.to_le_bytes(),
        &HASH.to_le_bytes(),
    ]
    .concat()
}

const FINGERPRINT_K1: u128 = 0x29a2db96_203561b2_dbb009cf_f9def2d5;
const FINGERPRINT_K2: u128 = 0x5aea048c_50a2676c_e95cea49_5a5f3f7d;
const DIGEST: u128 = 0x4c3631c9_d075fe9a_af9cf803_85c1a61c;
const HASH: u128 = 0x79f706c3_648ec8f9_a032d702_c82b4191;

#[test]
fn version_1_stays_readable() {
    let keys = IdempotencyTable::with_limits(LIMITS);
    let board = Board::new(BoardId::default());
    let boards = BTreeMap::from([(board.id().clone(), board)]);
    let leaderboard = Leaderboard::from_parts(boards, keys);
    let mut life = Life { leaderboard, index: 0, now: 0 };
    for step in [
        (0, vote("zoë", -2, None)),
        (10, vote("b", 5, Some("k1"))),
        (10, vote("b", 2, None)),
        (10, vote("b", Score::MAX.get(), Some("k2"))),
    ] {
        life.apply(&step);
    }
    let snapshot = life.leaderboard.to_snapshot();
    assert_eq!(snapshot, snapshot_of_version_1(), "a change of the bytes is a new version");
    let restored = Leaderboard::from_snapshot(&snapshot_of_version_1()).unwrap();
    assert_eq!(restored.digest(), life.leaderboard.digest());
}
