//! What the nodes say about themselves, and what of it is news.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

/// How long a node may take to describe itself.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of a node's description of itself.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// What of `GET /v1/cluster` matters here.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) role: String,
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) commit_index: u64,
    pub(crate) applied_index: u64,
}

impl View {
    fn leads(&self) -> bool {
        self.role.eq_ignore_ascii_case("leader")
    }
}

/// Asks nodes how they are.
#[derive(Clone, Debug)]
pub(crate) struct Questioner {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Questioner {
    pub(crate) fn new() -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// A node's view of the cluster, or nothing if it does not answer.
    pub(crate) async fn ask(&self, node: SocketAddr) -> Option<View> {
        let uri = format!("http://{node}/v1/cluster").parse().ok()?;
        let asking = async {
            let answer = self.http.get(uri).await.ok()?;
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        tokio::time::timeout(ANSWER_TIMEOUT, asking).await.ok()?
    }
}

/// Something to tell, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A node leads in a term in which nobody was seen to lead before.
    Elected {
        node: u16,
        term: u64,
        /// How long ago the last leader was lost, if that was seen.
        gap: Option<Duration>,
    },
    /// A node that was restarted has applied what the others had committed.
    CaughtUp { node: u16, applied: u64, took: Duration },
}

/// Turns views into news. Views may be old or contradict each other; the term tells which counts.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    views: BTreeMap<u16, View>,
    /// The last leader, and its term.
    elected: Option<(u16, u64)>,
    leader_lost: Option<Instant>,
    /// Nodes that were started and have not caught up, and when they were started.
    behind: BTreeMap<u16, Instant>,
}

impl Observer {
    /// Notes the start of a node; `again` if it has run before.
    pub(crate) fn started(&mut self, node: u16, again: bool, now: Instant) {
        self.views.remove(&node);
        if again {
            self.behind.insert(node, now);
        }
    }

    /// Notes the end of a node. Tells whether it was the leader.
    pub(crate) fn ended(&mut self, node: u16, now: Instant) -> bool {
        self.views.remove(&node);
        self.behind.remove(&node);
        let led = self.elected.is_some_and(|(leader, _)| leader == node);
        if led {
            self.leader_lost = Some(now);
        }
        led
    }

    /// What each node last said.
    pub(crate) fn view(&self, node: u16) -> Option<&View> {
        self.views.get(&node)
    }

    /// Takes in what a node says about itself.
    pub(crate) fn observe(&mut self, node: u16, view: Option<View>, now: Instant) -> Vec<News> {
        let Some(view) = view else {
            self.views.remove(&node);
            return Vec::new();
        };
        let mut news = Vec::new();
        let newer = self.elected.is_none_or(|(_, term)| view.term > term);
        if view.leads() && newer {
            let gap = self.leader_lost.take().map(|lost| now.duration_since(lost));
            self.elected = Some((node, view.term));
            news.push(News::Elected { node, term: view.term, gap });
        }
        self.views.insert(node, view);
        if let Some(caught_up) = self.caught_up(node, now) {
            news.push(caught_up);
        }
        news
    }

    /// A node has caught up when it follows a leader of the current term (or leads) and has
    /// applied what any node knows to be committed.
    fn caught_up(&mut self, node: u16, now: Instant) -> Option<News> {
        let started = *self.behind.get(&node)?;
        let view = self.views.get(&node)?;
        let committed = self.views.values().map(|view| view.commit_index).max()?;
        let term = self.views.values().map(|view| view.term).max()?;
        if view.leader.is_none() || view.term < term || view.applied_index < committed {
            return None;
        }
        let applied = view.applied_index;
        self.behind.remove(&node);
        Some(News::CaughtUp { node, applied, took: now.duration_since(started) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(role: &str, leader: Option<u64>, term: u64, applied: u64) -> Option<View> {
        let (role, commit_index) = (role.to_owned(), applied);
        Some(View { role, leader, term, commit_index, applied_index: applied })
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_election_is_told_once_and_a_deposed_leader_not_at_all() {
        let (mut observer, now) = (Observer::default(), Instant::now());
        let elected = |node, term| vec![News::Elected { node, term, gap: None }];
        assert_eq!(observer.observe(1, view("follower", None, 1, 0), now), []);
        assert_eq!(observer.observe(2, view("leader", Some(2), 1, 0), now), elected(2, 1));
        assert_eq!(observer.observe(2, view("leader", Some(2), 1, 5), now), []);
        assert_eq!(observer.observe(3, view("leader", Some(3), 2, 5), now), elected(3, 2));
        assert_eq!(observer.observe(2, view("leader", Some(2), 1, 5), now), []);
        assert_eq!(observer.observe(3, view("leader", Some(3), 4, 5), now), elected(3, 4));
    }

    #[test]
    fn the_time_without_a_leader_counts_from_its_end() {
        let (mut observer, start) = (Observer::default(), Instant::now());
        observer.observe(2, view("leader", Some(2), 1, 0), start);
        assert!(!observer.ended(1, start), "a follower");
        assert!(observer.ended(2, start), "the leader");
        let news = observer.observe(3, view("leader", Some(3), 2, 0), after(start, 700));
        let gap = Some(Duration::from_millis(700));
        assert_eq!(news, [News::Elected { node: 3, term: 2, gap }]);
    }

    #[test]
    fn a_restarted_node_has_caught_up_when_it_applied_what_is_committed() {
        let (mut observer, start) = (Observer::default(), Instant::now());
        observer.observe(1, view("leader", Some(1), 3, 100), start);
        observer.started(2, true, start);
        assert_eq!(observer.observe(2, None, after(start, 50)), []);
        assert_eq!(observer.observe(2, view("follower", None, 2, 60), after(start, 100)), []);
        assert_eq!(observer.observe(2, view("follower", Some(1), 3, 99), after(start, 200)), []);
        let news = observer.observe(2, view("follower", Some(1), 3, 100), after(start, 300));
        let took = Duration::from_millis(300);
        assert_eq!(news, [News::CaughtUp { node: 2, applied: 100, took }]);
        assert_eq!(observer.observe(2, view("follower", Some(1), 3, 100), start), []);
    }

    #[test]
    fn a_first_start_is_no_recovery() {
        let (mut observer, start) = (Observer::default(), Instant::now());
        observer.started(2, false, start);
        assert_eq!(observer.observe(2, view("follower", Some(1), 1, 0), start), []);
    }
}
