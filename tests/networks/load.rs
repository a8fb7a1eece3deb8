//! Clients that add scores and read them while something is wrong, and remember what they were told.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use super::real::Result;
use super::real::client::{Client, Outcome, Vote};
use super::registers::{self, Answer, Asked, Observed};

const CLIENTS: u64 = 12;
const PLAYERS: u64 = 6;
/// How long one attempt may take, and a vote with all of its attempts.
const ATTEMPT: &str = "500ms";
/// Nobody waits longer than this, whatever a node says.
const ANSWER_MAX: Duration = Duration::from_millis(700);
const VOTE_MAX: Duration = Duration::from_secs(20);

/// What clients did, and what they were told.
pub(crate) struct Load {
    begin: Instant,
    seen: RefCell<Vec<Observed>>,
    acknowledged: Cell<u64>,
    read: Cell<u64>,
    enough: Cell<bool>,
    doors: RefCell<Vec<SocketAddr>>,
}

impl Load {
    /// Clients that ask at these doors, one request at a time each.
    pub(crate) fn start(
        clients: &LocalSet,
        doors: Vec<SocketAddr>,
    ) -> (Rc<Self>, Vec<JoinHandle<()>>) {
        let load = Rc::new(Self {
            begin: Instant::now(),
            seen: RefCell::default(),
            acknowledged: Cell::new(0),
            read: Cell::new(0),
            enough: Cell::new(false),
            doors: RefCell::new(doors),
        });
        let client = |number| {
            let load = Rc::clone(&load);
            clients.spawn_local(async move { load.go_on_asking(number).await })
        };
        let tasks = (0..CLIENTS).map(client).collect();
        (load, tasks)
    }

    /// How many votes were acknowledged, and how many reads answered.
    pub(crate) fn done(&self) -> (u64, u64) {
        (self.acknowledged.get(), self.read.get())
    }

    /// From here on clients ask at these doors.
    #[allow(dead_code, reason = "not every test has doors that close")]
    pub(crate) fn use_doors(&self, doors: Vec<SocketAddr>) {
        self.doors.replace(doors);
    }

    fn any_door(&self, dice: &mut fastrand::Rng) -> SocketAddr {
        let doors = self.doors.borrow();
        doors[dice.usize(..doors.len())]
    }

    /// Ends the clients, and judges what they were told: is there an order of votes and reads that explains
    /// it (Herlihy and Wing)? How many operations that were.
    pub(crate) async fn judge(&self, tasks: Vec<JoinHandle<()>>) -> Result<usize> {
        self.enough.set(true);
        for task in tasks {
            task.await?;
        }
        let seen = self.seen.borrow();
        registers::check(&seen)?;
        Ok(seen.len())
    }

    /// A read of its own, told to nobody but the judge.
    pub(crate) async fn read_at(
        &self,
        client: u64,
        http: &Client,
        door: SocketAddr,
        player: u64,
    ) -> bool {
        let player = format!("player-{player}");
        let call = self.now();
        let asked = timeout(ANSWER_MAX, http.score(door, &player, ATTEMPT));
        let Ok(Ok(score)) = asked.await else { return false };
        let answered = Some((self.now(), Answer::Score(score)));
        self.note(Observed { client, player, call, asked: Asked::Read, answered });
        self.read.set(self.read.get() + 1);
        true
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a short test")
    }

    fn note(&self, observed: Observed) {
        self.seen.borrow_mut().push(observed);
    }

    async fn go_on_asking(&self, client: u64) {
        let (http, mut dice) = (Client::new(), fastrand::Rng::with_seed(client));
        for number in 0_u64.. {
            if self.enough.get() {
                return;
            }
            let player = dice.u64(..PLAYERS);
            if dice.u8(..3) == 0 {
                let door = self.any_door(&mut dice);
                if !self.read_at(client, &http, door, player).await {
                    sleep(Duration::from_millis(20)).await;
                }
            } else {
                let key = Some(format!("client-{client}-{number}"));
                let player = format!("player-{player}");
                let vote = Vote { player, score: dice.i64(1..1000), key };
                self.vote(client, &http, &vote, &mut dice).await;
            }
        }
    }

    /// Repeats a vote, wherever, until it is acknowledged.
    async fn vote(&self, client: u64, http: &Client, vote: &Vote, dice: &mut fastrand::Rng) {
        let (call, begin) = (self.now(), Instant::now());
        let mut doubtful = false;
        let answer = loop {
            let door = self.any_door(dice);
            match timeout(ANSWER_MAX, http.vote_within(door, vote, ATTEMPT)).await {
                Ok(Ok((Outcome::Acknowledged, Some(score)))) => break Some(Answer::Added(score)),
                Ok(Ok((Outcome::NotApplied, _))) => {}
                Ok(_) | Err(_) => doubtful = true,
            }
            if begin.elapsed() > VOTE_MAX || self.enough.get() {
                break (!doubtful).then_some(Answer::NotApplied);
            }
            sleep(Duration::from_millis(20)).await;
        };
        if matches!(answer, Some(Answer::Added(_))) {
            self.acknowledged.set(self.acknowledged.get() + 1);
        }
        let answered = answer.map(|answer| (self.now(), answer));
        let (player, asked) = (vote.player.clone(), Asked::Add(vote.score));
        self.note(Observed { client, player, call, asked, answered });
    }
}
