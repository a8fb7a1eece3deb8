//! Every waiter gets one answer, and it is the right one.

use std::time::Duration;

use raft_core::{LogPosition, Payload, Timestamp};

use super::*;

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        timestamp: Timestamp(0),
        payload: Payload::Noop,
    }
}

/// A waiter, and the ticket of its caller.
fn waiter() -> (Waiter, Ticket) {
    let (proposal, ticket) = Proposal::local(Bytes::new());
    assert!(proposal.waiter.claim());
    (proposal.waiter, ticket)
}

fn register(pending: &mut PendingProposals, first: u64, term: u64, count: u64) -> Vec<Ticket> {
    let (waiters, tickets): (Vec<_>, _) = (0..count).map(|_| waiter()).unzip();
    let waiters = waiters.into_iter().map(|waiter| (waiter, 50)).collect();
    let (first, last) = (position(first, term), position(first + count - 1, term));
    pending.register(Proposed { first, last }, waiters);
    tickets
}

fn answer_of(ticket: &mut Ticket) -> Option<Answer> {
    ticket.answer.try_recv().ok()
}

fn superseded() -> Option<Answer> {
    Some(Err(NotApplied::Superseded.into()))
}

#[test]
fn committed_entries_take_their_own_waiters_only() {
    let mut pending = PendingProposals::default();
    let mut old = register(&mut pending, 4, 1, 3);
    let mut new = register(&mut pending, 5, 3, 2);
    let taken = pending.take_committed(&[entry(3, 1), entry(4, 1), entry(5, 3)]);
    let indexes: Vec<u64> = taken.iter().map(|(index, _)| index.0).collect();
    assert_eq!(indexes, [4, 5]);
    assert_eq!(answer_of(&mut old[0]), None, "to be answered by the apply stage");
    assert_eq!(answer_of(&mut old[1]), superseded(), "5@3 was chosen, not 5@1");
    assert_eq!(answer_of(&mut new[0]), None);
    assert_eq!(answer_of(&mut old[2]), None, "6 is open");
    assert!(!pending.is_empty());
}

#[test]
fn a_superseded_run_leaves_other_terms_alone() {
    let mut pending = PendingProposals::default();
    let mut old = register(&mut pending, 4, 1, 3);
    let mut new = register(&mut pending, 4, 3, 3);
    let (first, last, fate) = (position(5, 1), position(6, 1), Fate::Superseded);
    pending.settle(ProposalOutcome { first, last, fate });
    let old: Vec<_> = old.iter_mut().map(answer_of).collect();
    assert_eq!(old, [None, superseded(), superseded()]);
    assert!(new.iter_mut().all(|ticket| answer_of(ticket).is_none()));
}

#[test]
fn a_commit_settles_nothing_before_it_is_applied() {
    let mut pending = PendingProposals::default();
    let mut tickets = register(&mut pending, 1, 1, 1);
    let (first, last, fate) = (position(1, 1), position(1, 1), Fate::Committed);
    pending.settle(ProposalOutcome { first, last, fate });
    assert_eq!(answer_of(&mut tickets[0]), None);
    pending.fail_all(&Unknown::ShuttingDown);
    assert_eq!(answer_of(&mut tickets[0]), Some(Err(Unknown::ShuttingDown.into())));
}

#[tokio::test(start_paused = true)]
async fn time_that_is_up_before_the_claim_means_not_applied() {
    let (proposal, ticket) = Proposal::local(Bytes::new());
    let deadline = Instant::now() + Duration::from_secs(1);
    assert_eq!(ticket.wait_until(deadline).await, Err(NotApplied::Timeout.into()));
    assert!(!proposal.waiter.claim(), "it must not be handed to a log any more");
}

#[tokio::test(start_paused = true)]
async fn time_that_is_up_after_the_claim_means_unknown() {
    let (waiter, ticket) = waiter();
    let deadline = Instant::now() + Duration::from_secs(1);
    assert_eq!(ticket.wait_until(deadline).await, Err(Unknown::Timeout.into()));
    assert!(waiter.is_abandoned());
}

#[tokio::test]
async fn a_dropped_waiter_is_an_answer() {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (proposal, ticket) = Proposal::local(Bytes::new());
    drop(proposal);
    assert_eq!(ticket.wait_until(deadline).await, Err(NotApplied::ShuttingDown.into()));
    let (waiter, ticket) = waiter();
    drop(waiter);
    assert_eq!(ticket.wait_until(deadline).await, Err(Unknown::ShuttingDown.into()));

    let (answers, mut queue) = mpsc::channel(1);
    drop(Forwarded::new(7, answers.reserve_owned().await.unwrap()));
    assert_eq!(queue.recv().await, Some((7, Err(Unknown::ShuttingDown.into()))));
}

#[test]
fn a_caller_that_gave_up_is_not_proposed_and_is_swept() {
    let (proposal, ticket) = Proposal::local(Bytes::new());
    drop(ticket);
    assert!(!proposal.waiter.claim());
    let mut pending = PendingProposals::default();
    drop(register(&mut pending, 1, 1, 1));
    pending.sweep();
    assert!(pending.is_empty() && pending.bytes == 0);
}

#[test]
fn what_is_pending_is_weighed() {
    let mut pending = PendingProposals::default();
    let tickets = register(&mut pending, 1, 1, 4);
    assert_eq!(pending.bytes, 200);
    pending.take_committed(&[entry(1, 1)]);
    let (first, last, fate) = (position(2, 1), position(3, 1), Fate::Superseded);
    pending.settle(ProposalOutcome { first, last, fate });
    assert_eq!(pending.bytes, 50);
    assert!(!pending.is_full());
    pending.bytes = PENDING_BYTES_MAX;
    assert!(pending.is_full());
    pending.fail_all(&Unknown::ShuttingDown);
    assert!(pending.is_empty() && !pending.is_full());
    drop(tickets);
}

#[test]
fn reads_wait_for_their_index_and_then_for_the_state_machine() {
    let mut reads = PendingReads::default();
    let (waiters, mut receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
    let mut waiters = waiters.into_iter();
    for id in 1..=3 {
        reads.wait_for_index(ReadId(id), waiters.next().into_iter().collect());
    }
    let outcome = |id, index| ReadOutcome { id: ReadId(id), index };
    let applied = LogIndex(5);
    reads.settle(outcome(1, Ok(LogIndex(5))), applied);
    reads.settle(outcome(2, Ok(LogIndex(6))), applied);
    reads.settle(outcome(3, Err(ReadRefused::LeadershipLost)), applied);
    assert_eq!(receivers[0].try_recv(), Ok(Ok(())));
    assert!(receivers[1].try_recv().is_err(), "6 is not applied yet");
    assert_eq!(receivers[2].try_recv(), Ok(Err(ReadFailure::NoLeader)));
    reads.on_applied(LogIndex(7));
    assert_eq!(receivers[1].try_recv(), Ok(Ok(())));
    assert!(reads.is_empty());
}

#[test]
fn reads_that_nobody_waits_for_are_forgotten() {
    let mut reads = PendingReads::default();
    let (gone, _) = oneshot::channel();
    let (here, receiver) = oneshot::channel();
    reads.wait_for_apply(LogIndex(u64::MAX), vec![gone, here]);
    reads.sweep();
    assert!(!reads.is_empty());
    drop(receiver);
    reads.sweep();
    assert!(reads.is_empty() && reads.has_room(READS_WAITING_MAX));
    assert!(!reads.has_room(READS_WAITING_MAX + 1));
}
