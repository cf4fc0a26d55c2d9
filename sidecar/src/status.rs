//! `SidecarService.GetStatus`: what a sidecar says about itself.
//!
//! The lease is read at the moment of asking.

use crate::node::{Node, Standing};
use consent::convert::to_duration;
use consent::pb::sidecar_service_server::SidecarService;
use consent::pb::{GetStatusRequest, GetStatusResponse, SidecarState};
use consent::{VERSION, clock};
use consent_core::confirm::holder::State;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// SidecarService.
pub(crate) struct StatusPage {
    node: Arc<Node>,
}

impl StatusPage {
    pub(crate) fn new(node: Arc<Node>) -> StatusPage {
        StatusPage { node }
    }
}

#[tonic::async_trait]
impl SidecarService for StatusPage {
    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let now = clock::now();
        let (Standing { state, why, authority }, lease) = self.node.standing_at(now);
        let view = self.node.table.read();
        Ok(Response::new(GetStatusResponse {
            state: to_state(state).into(),
            why,
            position: view.state().map(|state| state.position().into()),
            lease_left: lease.map(|lease| to_duration(lease.left(now))),
            accounts: view.state().map_or(0, |state| state.accounts()),
            incarnation: self.node.incarnation.bytes().to_vec().into(),
            authority,
            version: VERSION.to_owned(),
        }))
    }
}

const fn to_state(state: State) -> SidecarState {
    match state {
        State::Cold => SidecarState::Cold,
        State::Syncing => SidecarState::Syncing,
        State::Live => SidecarState::Live,
        State::Lapsed => SidecarState::Lapsed,
        State::Resync => SidecarState::Resync,
    }
}
