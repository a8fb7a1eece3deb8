//! The words for what can go wrong, each with its status and its title.

use http::StatusCode;

use StatusCode as S;

/// A stable word for what went wrong. Clients may match on it; it never changes its meaning. In the order of
/// their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    MalformedJson,
    MalformedParameters,
    IncompleteBody,
    MissingParameter,
    WrongType,
    UnknownParameter,
    DuplicateParameter,
    ConflictingParameters,
    InvalidHeader,
    InvalidCursor,
    CrossOrigin,
    UnknownPath,
    UnknownPlayer,
    UnknownMember,
    MethodNotAllowed,
    SlowRequest,
    ChangeInProgress,
    LastVoter,
    NoSnapshot,
    NoSuccessor,
    NotAVoter,
    NotCaughtUp,
    WouldLoseQuorum,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidAddress,
    InvalidName,
    OutOfRange,
    ScoreOutOfBounds,
    IdempotencyKeyReused,
    Internal,
    NoLeader,
    Overloaded,
    DiskFull,
    ShuttingDown,
    LeaderChanged,
    Interrupted,
    DeadlinePassed,
}

/// Each with its status, word and title, in the order of the codes.
const TABLE: [(Code, StatusCode, &str, &str); 38] = [
    (Code::MalformedJson, S::BAD_REQUEST, "malformed_json", "The body is not JSON"),
    (
        Code::MalformedParameters,
        S::BAD_REQUEST,
        "malformed_parameters",
        "The query or form cannot be decoded",
    ),
    (Code::IncompleteBody, S::BAD_REQUEST, "incomplete_body", "The body broke off"),
    (Code::MissingParameter, S::BAD_REQUEST, "missing_parameter", "A field is missing"),
    (Code::WrongType, S::BAD_REQUEST, "wrong_type", "A field has the wrong type"),
    (Code::UnknownParameter, S::BAD_REQUEST, "unknown_parameter", "A field is unknown"),
    (Code::DuplicateParameter, S::BAD_REQUEST, "duplicate_parameter", "A field is given twice"),
    (
        Code::ConflictingParameters,
        S::BAD_REQUEST,
        "conflicting_parameters",
        "Two fields exclude each other",
    ),
    (Code::InvalidHeader, S::BAD_REQUEST, "invalid_header", "A header is not valid"),
    (Code::InvalidCursor, S::BAD_REQUEST, "invalid_cursor", "The cursor is not valid"),
    (Code::CrossOrigin, S::FORBIDDEN, "cross_origin", "Another site must not operate the cluster"),
    (Code::UnknownPath, S::NOT_FOUND, "unknown_path", "There is nothing at this path"),
    (Code::UnknownPlayer, S::NOT_FOUND, "unknown_player", "The player has no score"),
    (Code::UnknownMember, S::NOT_FOUND, "unknown_member", "The node is no member"),
    (
        Code::MethodNotAllowed,
        S::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not know this method",
    ),
    (Code::SlowRequest, S::REQUEST_TIMEOUT, "slow_request", "The body came too slowly"),
    (Code::ChangeInProgress, S::CONFLICT, "change_in_progress", "Another change is under way"),
    (Code::LastVoter, S::CONFLICT, "last_voter", "It is the only voter"),
    (Code::NoSnapshot, S::CONFLICT, "no_snapshot", "No snapshot was cut"),
    (Code::NoSuccessor, S::CONFLICT, "no_successor", "Nobody took over"),
    (Code::NotAVoter, S::CONFLICT, "not_a_voter", "The node does not vote"),
    (Code::NotCaughtUp, S::CONFLICT, "not_caught_up", "The learner has not caught up"),
    (
        Code::WouldLoseQuorum,
        S::CONFLICT,
        "would_lose_quorum",
        "No majority would be left that answers",
    ),
    (Code::BodyTooLarge, S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
    (
        Code::UnsupportedMediaType,
        S::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "The body is of a kind that is not read here",
    ),
    (Code::InvalidAddress, S::UNPROCESSABLE_ENTITY, "invalid_address", "The address is not valid"),
    (Code::InvalidName, S::UNPROCESSABLE_ENTITY, "invalid_name", "The name is not valid"),
    (Code::OutOfRange, S::UNPROCESSABLE_ENTITY, "out_of_range", "A number is out of its range"),
    (
        Code::ScoreOutOfBounds,
        S::UNPROCESSABLE_ENTITY,
        "score_out_of_bounds",
        "The sum would be out of bounds",
    ),
    (
        Code::IdempotencyKeyReused,
        S::UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        "The idempotency key belongs to another request",
    ),
    (Code::Internal, S::INTERNAL_SERVER_ERROR, "internal", "The node made a mistake"),
    (Code::NoLeader, S::SERVICE_UNAVAILABLE, "no_leader", "No leader is known"),
    (Code::Overloaded, S::SERVICE_UNAVAILABLE, "overloaded", "Too much is waiting"),
    (Code::DiskFull, S::SERVICE_UNAVAILABLE, "disk_full", "The leader's disk is full"),
    (Code::ShuttingDown, S::SERVICE_UNAVAILABLE, "shutting_down", "This node is stopping"),
    (Code::LeaderChanged, S::SERVICE_UNAVAILABLE, "leader_changed", "The leader changed meanwhile"),
    (
        Code::Interrupted,
        S::SERVICE_UNAVAILABLE,
        "interrupted",
        "The write was interrupted, its outcome is unknown",
    ),
    (Code::DeadlinePassed, S::GATEWAY_TIMEOUT, "deadline_passed", "The time was up"),
];

/// A row at a wrong place would not compile.
const _: () = {
    let mut at = 0;
    while at < TABLE.len() {
        assert!(TABLE[at].0 as usize == at);
        at += 1;
    }
};

impl Code {
    /// All of them.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Status, word and title.
    pub(crate) const fn describe(self) -> (StatusCode, &'static str, &'static str) {
        let (_, status, word, title) = TABLE[self as usize];
        (status, word, title)
    }

    pub(super) const fn status(self) -> StatusCode {
        self.describe().0
    }
}
