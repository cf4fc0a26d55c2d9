//! The log of both servers: to stderr, as text for people on a terminal and as a JSON line per event elsewhere.
//!
//! A line tells of a start, a change of state, a resync with its cause, or a refusal of the store; never of one
//! answer, and never with an id of an account, an organization or an artifact. So no span is ever open on the path
//! of an answer, and lines are written as they come: a log that may lose lines would lose the one that matters.

use std::io::{IsTerminal, stderr};
use tracing::Level;

/// Writes what is as grave as `level` or graver. The first call of a process decides; a later one changes nothing.
pub fn start(level: Level) {
    // Nor does a server end because nobody reads its log any more: told of on stderr, that error would panic.
    let format =
        tracing_subscriber::fmt().with_max_level(level).with_writer(stderr).log_internal_errors(false);
    // An error says that another subscriber was there first, a test's for instance: it stays.
    let _ = if stderr().is_terminal() {
        format.with_target(false).try_init()
    } else {
        format.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
}
