//! Why a request got no answer. A domain answer, DENY too, is never one of these.
//!
//! The caller's message is made of what stands here; what a store or a socket said goes to the log only.
//! `consent::status` holds the one map from here to gRPC statuses.

use crate::words::{Revision, Span};

/// Why a request got no answer: nothing was decided, and unless it says otherwise nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A field of the request is wrong; the caller must change it.
    Invalid {
        /// The field's path in the request, in proto names: `artifact.id`, `requests[3].account`.
        field: String,
        /// What is wrong with it, to follow "the field".
        problem: String,
    },
    /// More items than one request may carry.
    TooMany {
        /// The field that carries them.
        field: &'static str,
        /// How many there were.
        count: usize,
        /// How many there may be.
        maximum: usize,
    },
    /// The request's bytes are no message of its method, and no field of it can be named.
    Malformed {
        /// What is wrong, to follow "the request".
        problem: String,
    },
    /// The request has more bytes than a server reads.
    MessageTooLarge {
        /// How many it may have.
        maximum: u64,
    },
    /// The request is compressed, in a way that no server reads.
    UnsupportedEncoding,
    /// The policy file is wrong; nothing was published.
    BadPolicy {
        /// Every error found: code such as `UNKNOWN_KEY`, line from 1, key, and a sentence.
        errors: Vec<PolicyError>,
    },
    /// The `request_id` was used before with another payload.
    RequestIdReused,
    /// An opt-in over a standing opt-out must carry `expected_revision`.
    ExpectedRevisionMissing {
        /// The party's revision now.
        actual: Revision,
    },
    /// The party's head has changed since `expected_revision`: read again, then decide again.
    Conflict {
        /// What the caller expected.
        expected: Revision,
        /// What it is.
        actual: Revision,
    },
    /// The account was erased; only an opt-out is still answered.
    AccountErased,
    /// There is no such thing.
    NotFound {
        /// What was asked for: `account`, `policy`.
        what: &'static str,
    },
    /// The position is of another ledger or of a revision that this one does not have.
    ForeignPosition,
    /// The confirmation asked for can no longer come: a failover lost the write. Send the `request_id` again.
    Lost,
    /// A bound was reached; nothing was written.
    Overloaded {
        /// When to try again.
        retry_after: Span,
    },
    /// It is not known whether the write is durable: ask again with the same `request_id`.
    OutcomeUnknown,
    /// The store cannot be reached or may not be written to now.
    StoreUnavailable,
    /// The state was written by a newer program than this one, which cannot read it: another replica may.
    ReplicaTooOld,
    /// The process is starting or stopping.
    NotServing,
    /// Nothing moved on a stream, of which there may be few.
    StreamIdle {
        /// For so long.
        idle: Span,
    },
    /// The caller's deadline is over.
    DeadlineExceeded,
    /// A broken invariant; what it is stands in the log only.
    Internal,
}

/// One error in a policy file (rule.md section 9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// `UNKNOWN_KEY`, `VERSION_NOT_RISING`, ...
    pub code: &'static str,
    /// The line in the file, from 1.
    pub line: u32,
    /// The key as written in the file: `product.le_chat.plan.free.mode`.
    pub key: String,
    /// One sentence.
    pub message: String,
}
