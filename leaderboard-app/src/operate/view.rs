//! What nodes say: about the cluster, and why they refuse something.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

/// `GET /v1/cluster`, as far as it is shown. What else a node says is passed over.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ClusterView {
    pub(super) cluster: String,
    pub(super) node: u64,
    pub(super) role: String,
    pub(super) leader: Option<u64>,
    pub(super) term: u64,
    pub(super) members: Vec<MemberView>,
    pub(super) last_index: u64,
    pub(super) commit_index: u64,
    pub(super) applied_index: u64,
    pub(super) snapshot_index: u64,
    pub(super) digest: String,
}

/// A member, as a node sees it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct MemberView {
    pub(super) id: u64,
    pub(super) raft: Option<String>,
    pub(super) http: Option<String>,
    pub(super) kind: String,
    pub(super) match_index: Option<u64>,
    pub(super) lag_entries: Option<u64>,
    pub(super) healthy: bool,
}

impl ClusterView {
    pub(super) fn member(&self, id: u64) -> Option<&MemberView> {
        self.members.iter().find(|member| member.id == id)
    }
}

impl MemberView {
    pub(super) fn votes(&self) -> bool {
        self.kind == "voter"
    }
}

/// Why something was refused (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) detail: String,
    /// Nothing was done, and the same may work another time.
    pub(super) may_try_again: bool,
    /// It may have been done.
    pub(super) unknown: bool,
}

impl Refusal {
    /// From an answer that is no success, whoever gave it.
    pub(super) fn of(status: StatusCode, body: &Value) -> Self {
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let detail = match text("detail") {
            Some(detail) => printable(detail),
            None => format!("the answer is {status}"),
        };
        let unknown = match text("outcome") {
            Some(outcome) => outcome != "not_applied",
            // Not the words of a node or a balancer of ours.
            None => status.is_server_error(),
        };
        Self {
            status,
            code: text("code").map(printable).unwrap_or_default(),
            detail,
            may_try_again: !unknown && text("retry") == Some("safe"),
            unknown,
        }
    }
}

/// What another process says must not steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_whether_something_was_done() {
        let of = |status, body: Value| Refusal::of(StatusCode::from_u16(status).unwrap(), &body);
        let refusal = of(
            503,
            json!({ "code": "no_leader", "detail": "No\u{1b}[2J", "outcome": "not_applied",
                    "retry": "safe" }),
        );
        assert!(refusal.may_try_again && !refusal.unknown);
        assert_eq!((&*refusal.code, &*refusal.detail), ("no_leader", "No\u{fffd}[2J"));
        let refusal = of(504, json!({ "outcome": "unknown", "retry": "never" }));
        assert!(!refusal.may_try_again && refusal.unknown);
        assert_eq!(refusal.detail, "the answer is 504 Gateway Timeout");
        assert!(of(502, Value::Null).unknown && !of(404, Value::Null).unknown);
    }
}
