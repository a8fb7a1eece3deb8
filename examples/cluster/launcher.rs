//! The loop that owns the children and reacts to everything that happens.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::commands::{Command, read_commands};
use crate::observer::{News, Observer, Questioner, View};
use crate::plan::{Member, Plan, shown};
use crate::process::{Process, describe_end, has_refused, last_line};
use crate::screen::{NodeRow, Screen};

/// How often each node is asked how it is.
const ASK_INTERVAL: Duration = Duration::from_millis(150);

/// How long the balancer, and then the nodes, may take to stop before they are killed.
const BALANCER_PATIENCE: Duration = Duration::from_secs(3);
const NODES_PATIENCE: Duration = Duration::from_secs(10);

/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The exit code of a program that Ctrl-C has ended at once.
const INTERRUPTED: u8 = 130;

/// Starts the cluster and stays until it is told to stop.
pub(crate) async fn run(plan: &Plan, screen: &Screen) -> ExitCode {
    let (exe, mut stop_requests) = match std::env::current_exe().and_then(|exe| {
        let stop_requests = StopRequests::listen()?;
        Ok((exe, stop_requests))
    }) {
        Ok(both) => both,
        Err(error) => {
            screen.failed(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut launcher = Launcher::new(plan, screen, exe);
    if let Err(error) = launcher.start_all() {
        screen.failed(&error);
        launcher.stop(&mut stop_requests).await;
        return ExitCode::FAILURE;
    }
    launcher.introduce();
    if !launcher.react(&mut stop_requests).await {
        screen.failed("no node is left running; see the logs");
        launcher.stop(&mut stop_requests).await;
        return ExitCode::FAILURE;
    }
    launcher.stop(&mut stop_requests).await
}

/// Ctrl-C, SIGTERM, and the end of the terminal.
struct StopRequests {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl StopRequests {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

struct Launcher<'a> {
    plan: &'a Plan,
    screen: &'a Screen,
    exe: PathBuf,
    running: BTreeMap<Member, Process>,
    /// The ends of all that runs.
    lives: JoinSet<(Member, io::Result<ExitStatus>)>,
    questioner: Questioner,
    /// Questions under way, at most one a node.
    questions: JoinSet<(u16, u32, Option<View>)>,
    asked: BTreeSet<u16>,
    observer: Observer,
    /// Nodes that ended by themselves, not by a signal.
    failed: BTreeSet<u16>,
    /// What was told to die and has not ended yet, and whether to start it again then.
    dying: BTreeMap<Member, bool>,
}

impl<'a> Launcher<'a> {
    fn new(plan: &'a Plan, screen: &'a Screen, exe: PathBuf) -> Self {
        Self {
            plan,
            screen,
            exe,
            running: BTreeMap::new(),
            lives: JoinSet::new(),
            questioner: Questioner::new(),
            questions: JoinSet::new(),
            asked: BTreeSet::new(),
            observer: Observer::default(),
            failed: BTreeSet::new(),
            dying: BTreeMap::new(),
        }
    }

    fn start_all(&mut self) -> Result<(), String> {
        self.plan.members().try_for_each(|member| {
            self.start(member)?;
            if let Member::Node(id) = member {
                self.observer.started(id, false, Instant::now());
            }
            Ok(())
        })
    }

    /// Starts one process; returns its pid.
    fn start(&mut self, member: Member) -> Result<u32, String> {
        let log = self.plan.log(member);
        let (process, life) = Process::start(&self.exe, &self.plan.arguments(member), &log)
            .map_err(|error| format!("cannot start {member}: {error}"))?;
        let pid = process.pid;
        self.running.insert(member, process);
        self.lives.spawn(async move { (member, life.await) });
        Ok(pid)
    }

    /// The table, the address of the page, and what can be typed.
    fn introduce(&self) {
        let rows: Vec<NodeRow> = self.plan.nodes().map(|id| self.row(id)).collect();
        let pid = self.running.get(&Member::Balancer).map(|process| process.pid);
        self.screen.introduce(&rows, self.plan.listen(), pid, &shown(self.plan.data_dir()));
    }

    fn row(&self, id: u16) -> NodeRow {
        let process = self.running.get(&Member::Node(id));
        NodeRow {
            id,
            pid: process.map(|process| process.pid),
            up_for: process.map(|process| process.started.elapsed()),
            http: self.plan.http(id),
            raft: self.plan.raft(id),
            data: shown(&self.plan.node_dir(id)),
            view: self.observer.view(id).cloned(),
        }
    }

    /// Reacts until told to stop; `false` if all nodes have failed by themselves.
    async fn react(&mut self, stop_requests: &mut StopRequests) -> bool {
        let mut commands = read_commands();
        let mut ask_time = interval(ASK_INTERVAL);
        ask_time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop_requests.next() => return true,
                Some(Ok((member, status))) = self.lives.join_next() => {
                    self.ended(member, &status);
                    if self.plan.nodes().all(|id| self.failed.contains(&id)) {
                        return false;
                    }
                }
                Some(Ok((node, pid, view))) = self.questions.join_next() => {
                    self.answered(node, pid, view);
                }
                _ = ask_time.tick() => self.ask(),
                Some(command) = commands.recv() => match command {
                    Command::Quit => return true,
                    other => self.obey(other),
                },
            }
        }
    }

    /// Asks every node that runs and owes no answer.
    fn ask(&mut self) {
        for (&member, process) in &self.running {
            let Member::Node(id) = member else { continue };
            if self.asked.insert(id) {
                let (questioner, node) = (self.questioner.clone(), self.plan.http(id));
                let pid = process.pid;
                self.questions.spawn(async move { (id, pid, questioner.ask(node).await) });
            }
        }
    }

    fn answered(&mut self, node: u16, pid: u32, view: Option<View>) {
        self.asked.remove(&node);
        // The answer of a process that has ended since is not news.
        if self.running.get(&Member::Node(node)).is_none_or(|process| process.pid != pid) {
            return;
        }
        for news in self.observer.observe(node, view, Instant::now()) {
            match news {
                News::Elected { node, term, gap } => self.screen.elected(node, term, gap),
                News::CaughtUp { node, applied, took } => {
                    self.screen.caught_up(node, applied, took);
                }
            }
        }
    }

    /// Notices that a process has ended, however it came about.
    fn ended(&mut self, member: Member, status: &io::Result<ExitStatus>) {
        self.running.remove(&member);
        let was_leader = match member {
            Member::Node(id) => self.observer.ended(id, Instant::now()),
            Member::Balancer => false,
        };
        let mut words = format!("{member} {}", describe_end(status));
        if was_leader {
            words.push_str("; it was the leader");
        }
        if has_refused(status) {
            self.screen.refused(&words);
        } else {
            self.screen.ended(&words, &member.key());
        }
        let by_itself = status.as_ref().is_ok_and(|status| status.code().is_some());
        if by_itself {
            let log = self.plan.log(member);
            self.screen.reason(last_line(&log).as_deref(), &shown(&log));
            if let Member::Node(id) = member {
                self.failed.insert(id);
            }
        }
        if self.dying.remove(&member) == Some(true) {
            self.restart(member);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Kill(member) => self.kill(member),
            Command::Restart(member) => self.restart(member),
            Command::Status => {
                let rows: Vec<NodeRow> = self.plan.nodes().map(|id| self.row(id)).collect();
                self.screen.status(&rows);
            }
            Command::Help => self.screen.help(),
            Command::Quit => unreachable!("the loop ends on it"),
            Command::Nonsense(line) => {
                self.screen.hint(&format!("`{line}` is no command; h shows them"));
            }
        }
    }

    fn kill(&mut self, member: Member) {
        match self.running.get(&member) {
            // Its end is noticed and told as any other.
            Some(process) => {
                process.signal(Signal::KILL);
                self.dying.insert(member, false);
            }
            None => self.not_running(member),
        }
    }

    fn restart(&mut self, member: Member) {
        if !self.plan.members().any(|known| known == member) {
            return self.not_running(member);
        }
        let key = member.key();
        if let Some(again) = self.dying.get_mut(&member) {
            *again = true;
            return;
        }
        if self.running.contains_key(&member) {
            return self.screen.hint(&format!("{member} is running; k {key} kills it"));
        }
        match self.start(member) {
            Ok(pid) => {
                if let Member::Node(id) = member {
                    self.failed.remove(&id);
                    self.observer.started(id, true, Instant::now());
                }
                self.screen.restarted(member, pid);
            }
            Err(error) => self.screen.hint(&error),
        }
    }

    fn not_running(&self, member: Member) {
        let known = self.plan.members().any(|known| known == member);
        self.screen.hint(&match known {
            true => format!("{member} is not running; r {} starts it", member.key()),
            false => format!("there is no {member}"),
        });
    }

    /// Stops everything: first the balancer, whose requests still need the nodes, then the nodes.
    /// What does not stop in time is killed, and all is when the request to stop is repeated.
    async fn stop(&mut self, stop_requests: &mut StopRequests) -> ExitCode {
        self.screen.stopping();
        let nodes: Vec<Member> = self.plan.nodes().map(Member::Node).collect();
        let mut exit_code = ExitCode::SUCCESS;
        for (members, patience) in
            [(vec![Member::Balancer], BALANCER_PATIENCE), (nodes, NODES_PATIENCE)]
        {
            self.signal(&members, Signal::TERM);
            tokio::select! {
                () = self.all_ended(&members) => {}
                () = sleep(patience) => {
                    self.screen.hint("not everything stops in time: the rest is killed");
                    self.signal(&members, Signal::KILL);
                }
                () = stop_requests.next() => {
                    exit_code = ExitCode::from(INTERRUPTED);
                    break;
                }
            }
        }
        let all: Vec<Member> = self.plan.members().collect();
        self.signal(&all, Signal::KILL);
        if tokio::time::timeout(KILL_PATIENCE, self.all_ended(&all)).await.is_err() {
            let left: Vec<String> =
                self.running.values().map(|process| process.pid.to_string()).collect();
            self.screen.failed(&format!("still there after SIGKILL: {}", left.join(", ")));
            return ExitCode::FAILURE;
        }
        self.screen.stopped(&shown(self.plan.data_dir()));
        exit_code
    }

    fn signal(&self, members: &[Member], signal: Signal) {
        for member in members {
            if let Some(process) = self.running.get(member) {
                process.signal(signal);
            }
        }
    }

    /// Resolves when none of these runs.
    async fn all_ended(&mut self, members: &[Member]) {
        while members.iter().any(|member| self.running.contains_key(member)) {
            let Some(ended) = self.lives.join_next().await else { return };
            let Ok((member, status)) = ended else { continue };
            self.running.remove(&member);
            if !status.as_ref().is_ok_and(ExitStatus::success) {
                self.screen.hint(&format!("{member} {}", describe_end(&status)));
            }
        }
    }
}
