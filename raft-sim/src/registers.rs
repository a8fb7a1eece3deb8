//! A workload without a purpose: a few registers, and clients that read and write them.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::{LogPosition, Timestamp};

use crate::machine::{Operation, RestoreError, StateMachine, Words, Workload, digest_of};

/// How many registers there are.
const REGISTERS: u64 = 4;

/// Clients that write to registers and read them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers;

/// The registers, and for each client its last command and the answer to it, so that a repetition is known
/// (dissertation §6.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterMachine {
    values: BTreeMap<u64, u64>,
    sessions: BTreeMap<u64, (u64, u64)>,
}

/// The first byte of a response.
const NEW: u8 = 0;
const KNOWN: u8 = 1;
const TOO_OLD: u8 = 2;

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (words, _rest) = bytes.as_chunks();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

fn bytes_of(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

impl StateMachine for RegisterMachine {
    /// Answers with the value before.
    fn apply(&mut self, _position: LogPosition, _timestamp: Timestamp, command: &Bytes) -> Bytes {
        let mut words = words(command);
        let mut next = || words.next().expect("a command of ours has four words");
        let (client, number, register, value) = (next(), next(), next(), next());
        let (kind, before) = match self.sessions.get(&client) {
            Some(&(last, _)) if number < last => (TOO_OLD, 0),
            Some(&(last, before)) if number == last => (KNOWN, before),
            Some(_) | None => {
                let before = self.values.insert(register, value).unwrap_or_default();
                self.sessions.insert(client, (number, before));
                (NEW, before)
            }
        };
        let mut response = vec![kind];
        response.extend(before.to_le_bytes());
        response.into()
    }

    fn query(&self, query: &Bytes) -> Bytes {
        let register = words(query).next().unwrap_or_default();
        let value = self.values.get(&register).copied();
        Bytes::from(bytes_of([value.unwrap_or_default()]))
    }

    fn snapshot(&self) -> Bytes {
        let Self { values, sessions } = self;
        let mut all = vec![values.len() as u64];
        all.extend(values.iter().flat_map(|(&register, &value)| [register, value]));
        let sessions = sessions.iter();
        all.extend(sessions.flat_map(|(&client, &(last, before))| [client, last, before]));
        bytes_of(all).into()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let words: Vec<u64> = words(snapshot).collect();
        let (count, rest) = words.split_first().ok_or("it is empty")?;
        let values =
            rest.get(..usize::try_from(count.saturating_mul(2))?).ok_or("it is too short")?;
        let sessions = &rest[values.len()..];
        self.values = values.as_chunks().0.iter().map(|&[key, value]| (key, value)).collect();
        let session = |&[client, last, before]: &[u64; 3]| (client, (last, before));
        self.sessions = sessions.as_chunks().0.iter().map(session).collect();
        Ok(())
    }

    /// Over the fields, and not over what a snapshot has of them.
    fn digest(&self) -> u128 {
        let Self { values, sessions } = self;
        digest_of(&(values, sessions))
    }
}

impl Workload for Registers {
    type Machine = RegisterMachine;

    fn machine(&self) -> RegisterMachine {
        RegisterMachine::default()
    }

    fn next(&self, client: u64, number: u64, random: &mut fastrand::Rng) -> Operation {
        let (register, value) = (random.u64(..REGISTERS), random.u64(..));
        if random.u8(..3) == 0 {
            return Operation::Query(bytes_of([register]).into());
        }
        let mut command = bytes_of([client, number, register, value]);
        command.resize(command.len() + random.usize(..70), 0);
        Operation::Write { command: command.into(), repeatable: random.u8(..4) > 0 }
    }

    fn decides(&self, _command: &Bytes, response: &Bytes) -> bool {
        response.first() == Some(&NEW)
    }

    fn describe(&self, words: Words<'_>) -> String {
        let mut numbers = self::words(words.bytes().get(1..).unwrap_or_default());
        match words {
            Words::Command(command) => {
                let of: Vec<u64> = self::words(command).take(4).collect();
                match of.as_slice() {
                    [client, number, register, value] => {
                        format!("r{register} := {value:x} ({client}-{number})")
                    }
                    _ => format!("\"{}\"", command.escape_ascii()),
                }
            }
            Words::Response(response) => match (response.first(), numbers.next()) {
                (Some(&NEW), Some(before)) => format!("was {before:x}"),
                (Some(&KNOWN), Some(before)) => format!("was {before:x}, known"),
                _ => "too old".to_owned(),
            },
            Words::Query(query) => format!("r{}", self::words(query).next().unwrap_or_default()),
            Words::Answer(answer) => {
                format!("{:x}", self::words(answer).next().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{LogIndex, Term};

    use super::*;

    #[test]
    fn a_repetition_is_known_also_from_a_snapshot() {
        let mut machine = RegisterMachine::default();
        let apply = |machine: &mut RegisterMachine, words: [u64; 4]| {
            let at = LogPosition::new(Term(1), LogIndex(1));
            machine.apply(at, Timestamp(0), &bytes_of(words).into())[0]
        };
        assert_eq!(apply(&mut machine, [7, 1, 0, 5]), NEW);
        assert_eq!(apply(&mut machine, [8, 1, 0, 6]), NEW);
        assert_eq!(apply(&mut machine, [7, 2, 3, 9]), NEW);
        let mut other = RegisterMachine::default();
        other.restore(&machine.snapshot()).unwrap();
        assert_eq!(other, machine);
        assert_eq!(apply(&mut other, [7, 2, 3, 9]), KNOWN);
        assert_eq!(apply(&mut other, [7, 1, 0, 5]), TOO_OLD);
        assert_eq!(other, machine);
    }
}
