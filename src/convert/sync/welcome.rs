//! The welcome: under what terms a sidecar is served, and how it begins.

use super::parts::{raw, required, response};
use crate::convert::{invalid, span, to_duration};
use crate::pb::{self, sync_response};
use consent_core::confirm::{Start, Terms, Values};
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, IdKey, Incarnation, Revision};

/// Words a welcome.
pub fn welcome(
    grantor: Incarnation,
    epoch: Epoch,
    start: Start,
    terms: &Terms,
    id_key: &IdKey,
    revision: Revision,
) -> pb::SyncResponse {
    response(sync_response::Message::Welcome(pb::Welcome {
        incarnation: raw(grantor.bytes()),
        epoch: raw(epoch.bytes()),
        resume: start == Start::Continue,
        id_key: raw(id_key.bytes()),
        terms: Some(terms_announced(terms)),
        revision: revision.get(),
        start: start_announced(start).into(),
    }))
}

pub(super) fn start(start: i32) -> Result<Start, Refusal> {
    match pb::Start::try_from(start) {
        Ok(pb::Start::Frames) => Ok(Start::Continue),
        Ok(pb::Start::Snapshot) => Ok(Start::Snapshot),
        Ok(pb::Start::RestOfSnapshot) => Ok(Start::RestOfSnapshot),
        Ok(pb::Start::Unspecified) | Err(_) => Err(invalid("welcome.start", "is unknown")),
    }
}

fn start_announced(start: Start) -> pb::Start {
    match start {
        Start::Continue => pb::Start::Frames,
        Start::Snapshot => pb::Start::Snapshot,
        Start::RestOfSnapshot => pb::Start::RestOfSnapshot,
    }
}

pub(super) fn terms(terms: pb::Terms) -> Result<Terms, Refusal> {
    let read = |field: &str, wire: Option<prost_types::Duration>| {
        let field = format!("welcome.terms.{field}");
        span(&field, &required(&field, wire)?)
    };
    Terms::new(Values {
        sidecar_lease: read("sidecar_lease", terms.sidecar_lease)?,
        replica_lease: read("replica_lease", terms.replica_lease)?,
        drift_ppm: terms.drift_ppm,
        slack: read("slack", terms.slack)?,
        hold: read("answer_hold", terms.answer_hold)?,
        poll: read("poll", terms.poll)?,
    })
    .map_err(|why| invalid("welcome.terms", format_args!("is not safe: {why}")))
}

fn terms_announced(terms: &Terms) -> pb::Terms {
    let values = terms.values();
    pb::Terms {
        sidecar_lease: Some(to_duration(values.sidecar_lease)),
        replica_lease: Some(to_duration(values.replica_lease)),
        drift_ppm: values.drift_ppm,
        slack: Some(to_duration(values.slack)),
        answer_hold: Some(to_duration(values.hold)),
        poll: Some(to_duration(values.poll)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::words::Span;

    #[test]
    fn a_sidecar_refuses_unsafe_terms() {
        let unsafe_terms = pb::Terms {
            replica_lease: Some(to_duration(Span::from_millis(1))),
            ..terms_announced(&Terms::default())
        };
        assert!(terms(unsafe_terms).is_err());
    }
}
