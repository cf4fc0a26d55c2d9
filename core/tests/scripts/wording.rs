//! How a transcript words what is on its way.

use super::history::{Ask, Told};
use super::parties::Body;
use super::world::World;
use consent_core::confirm::{Place, ToAuthority, ToSidecar, confirmer, grantor};

impl World {
    /// A place in short: its revision and the event that made it.
    pub(crate) fn at(&self, place: &Place) -> String {
        match self.tree.events(&place.chain).last() {
            Some(event) => format!("{}{event}", place.revision),
            None => "0".into(),
        }
    }

    pub(crate) fn describe(&self, body: &Body) -> String {
        use ToAuthority as Up;
        match body {
            Body::Up(_, Up::Hello { place, .. }) => match place {
                Some(place) => format!("hello at {}", self.at(place)),
                None => "hello".into(),
            },
            Body::Up(_, Up::KeepAlive { nonce }) => format!("keepalive n{}", nonce.0),
            Body::Up(_, Up::Ack { revision, .. }) => format!("ack {revision}"),
            Body::Up(_, Up::Relinquish { last }) => format!("relinquish n{}", last.0),
            Body::Down(_, ToSidecar::Welcome { start, .. }) => format!("welcome, {start:?}").to_lowercase(),
            Body::Down(_, ToSidecar::Unwelcome(why)) => {
                format!("unwelcome, {why:?}").to_lowercase().split(" {").next().unwrap_or_default().into()
            }
            Body::Down(_, ToSidecar::Frame(frame)) => format!("frame {}", self.at(&frame.place())),
            Body::Down(_, ToSidecar::Grant { nonce, place }) => {
                format!("grant n{} at {}", nonce.0, self.at(place))
            }
            Body::Down(_, ToSidecar::Draining) => "draining".into(),
            Body::Snapshot(_, place, _) => format!("snapshot at {}", self.at(place)),
            Body::Closed(_) => "closed".into(),
            Body::Ask(_, ask) => match ask {
                Ask::Register => "register".into(),
                Ask::Renew { .. } => "renew".into(),
                Ask::Report { drained } => format!("report {drained} drained"),
                Ask::CloseRow => "close-row".into(),
                Ask::LookUp { revision, .. } => format!("look-up {revision}"),
                Ask::Read { .. } => "read".into(),
                Ask::Reap { .. } => "reap".into(),
                Ask::Settle { .. } => "settle".into(),
            },
            Body::Told(_, told) => match told {
                Told::Grantor(grantor::Input::Registered { head }) => {
                    format!("registered at {}", self.at(head))
                }
                Told::Grantor(grantor::Input::Renewed { head, .. }) => {
                    format!("renewed at {}", self.at(head))
                }
                Told::Grantor(grantor::Input::RenewalFailed { .. }) => "failed".into(),
                Told::Grantor(grantor::Input::Fenced) => "fenced".into(),
                Told::Grantor(grantor::Input::Found { chain, .. }) => {
                    if chain.is_some() {
                        "found".into()
                    } else {
                        "found nothing".into()
                    }
                }
                Told::Grantor(grantor::Input::DrainReported { .. }) => "reported".into(),
                Told::Grantor(grantor::Input::RowClosed) => "row-closed".into(),
                Told::Grantor(_) | Told::Nothing => "failed".into(),
                Told::Confirmer(confirmer::Input::Read(reading)) => {
                    let rows =
                        reading.open_rows.iter().map(|row| format!("{}", row.drained_rev.max(row.reg_rev)));
                    format!("rows [{}]", rows.collect::<Vec<_>>().join(" "))
                }
                Told::Confirmer(confirmer::Input::Tried) => "tried".into(),
                Told::Confirmer(_) => "failed".into(),
            },
        }
    }
}
