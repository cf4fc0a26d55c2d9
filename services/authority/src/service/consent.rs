//! ConsentService: what people choose, what they subscribe to, and the ledger of it.
//!
//! Handlers convert, hand the write to the lane, and wait; everything else is elsewhere. Reads come from the primary,
//! each from one snapshot.

use super::snapshot;
use super::writes::{Writes, confirmation, deadline};
use crate::metrics::Method;
use crate::store::{LedgerEntry, LedgerHead, Reader};
use consent::convert::{self, account, consent as wire, event};
use consent::pb::{self, consent_service_server::ConsentService};
use consent::status::status;
use consent_core::event::Recorded;
use consent_core::head::{AccountHead, HeadKey, PolicyHead};
use consent_core::refusal::Refusal;
use consent_core::words::{IdKey, Position, Revision};
use tonic::{Request, Response, Status};

/// A page of events where the caller names no size, and the largest one.
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;

/// The service over one store's readers.
pub(crate) struct Consent<R> {
    pub(crate) writes: Writes,
    pub(crate) reader: R,
    pub(crate) id_key: IdKey,
}

#[tonic::async_trait]
impl<R: Reader> ConsentService for Consent<R> {
    async fn set_consent(
        &self,
        request: Request<pb::SetConsentRequest>,
    ) -> Result<Response<pb::SetConsentResponse>, Status> {
        let deadline = deadline(&request);
        let write = wire::set_consent(request.get_ref(), &self.id_key);
        let recorded = self.writes.make(Method::SetConsent, write, None, deadline).await?;
        Ok(Response::new(pb::SetConsentResponse { receipt: Some(recorded.receipt) }))
    }

    async fn put_account(
        &self,
        request: Request<pb::PutAccountRequest>,
    ) -> Result<Response<pb::PutAccountResponse>, Status> {
        let deadline = deadline(&request);
        let write = wire::put_account(request.get_ref(), &self.id_key);
        let recorded = self.writes.make(Method::PutAccount, write, None, deadline).await?;
        Ok(Response::new(pb::PutAccountResponse { receipt: Some(recorded.receipt) }))
    }

    async fn put_organization(
        &self,
        request: Request<pb::PutOrganizationRequest>,
    ) -> Result<Response<pb::PutOrganizationResponse>, Status> {
        let deadline = deadline(&request);
        let write = wire::put_organization(request.get_ref(), &self.id_key);
        let recorded = self.writes.make(Method::PutOrganization, write, None, deadline).await?;
        Ok(Response::new(pb::PutOrganizationResponse { receipt: Some(recorded.receipt) }))
    }

    async fn set_plan(
        &self,
        request: Request<pb::SetPlanRequest>,
    ) -> Result<Response<pb::SetPlanResponse>, Status> {
        let deadline = deadline(&request);
        let write = wire::set_plan(request.get_ref(), &self.id_key);
        let recorded = self.writes.make(Method::SetPlan, write, None, deadline).await?;
        Ok(Response::new(pb::SetPlanResponse { receipt: Some(recorded.receipt) }))
    }

    async fn get_account(
        &self,
        request: Request<pb::GetAccountRequest>,
    ) -> Result<Response<pb::GetAccountResponse>, Status> {
        let found = self.account(request.into_inner().account).await.map_err(status)?;
        Ok(Response::new(found))
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let page = self.events(request.get_ref()).await.map_err(status)?;
        Ok(Response::new(page))
    }

    async fn get_confirmation(
        &self,
        request: Request<pb::GetConfirmationRequest>,
    ) -> Result<Response<pb::GetConfirmationResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.get_ref();
        let found = async {
            let position = convert::present("position", request.position.as_ref())?;
            let position = convert::position("position", position)?;
            let chain = convert::chain("chain", &request.chain)?;
            // The chain proves more than the epoch: a write that a failover kept is found under the new one.
            let confirmations = &self.writes.confirmations;
            confirmation(
                confirmations.judge(position.revision, chain, request.wait_effective, deadline).await?,
            )
        };
        let found = found.await.map_err(status)?;
        Ok(Response::new(pb::GetConfirmationResponse {
            confirmation: found.into(),
            effective: self.writes.confirmations.effective().map(Into::into),
        }))
    }
}

impl<R: Reader> Consent<R> {
    async fn account(&self, id: String) -> Result<pb::GetAccountResponse, Refusal> {
        let key = self.id_key.account(convert::id("account", &id)?);
        let (ledger, state) = snapshot::read(&self.reader, &[HeadKey::Account(key)]).await?;
        let state = state.ok_or(Refusal::Internal)?;
        let head = state.account(key)?.ok_or(Refusal::NotFound { what: "account" })?;
        let organization = match head {
            AccountHead::Known(known) => known.organization,
            AccountHead::Erased { .. } => None,
        };
        let organization = match organization {
            Some(key) => self.reader.id_of(HeadKey::Organization(key)).await?,
            None => None,
        };
        Ok(account::account(id, organization.unwrap_or_default(), head, state.policy(), position(&ledger)))
    }

    async fn events(&self, request: &pb::ListEventsRequest) -> Result<pb::ListEventsResponse, Refusal> {
        let after = convert::revision("after_revision", request.after_revision)?;
        let limit = match request.page_size {
            0 => PAGE_DEFAULT,
            size => size.min(PAGE_MAX),
        };
        let (ledger, entries) = self.reader.ledger(after, limit).await?;
        // Read after the events: every name that they use has its index by now, and keeps it.
        let (_, state) = snapshot::read(&self.reader, &[]).await?;
        let state = state.ok_or(Refusal::Internal)?;
        let mut next = after;
        let mut events = Vec::with_capacity(entries.len());
        for entry in entries {
            let (revision, shown) = show(entry, state.policy())?;
            next = revision;
            events.push(shown);
        }
        Ok(pb::ListEventsResponse {
            events,
            next_after_revision: next.get(),
            position: Some(position(&ledger).into()),
        })
    }
}

fn position(ledger: &LedgerHead) -> Position {
    Position { epoch: ledger.epoch, revision: ledger.revision }
}

/// An event with its evidence, as far as that was not erased.
fn show(entry: LedgerEntry, policy: &PolicyHead) -> Result<(Revision, pb::LedgerEvent), Refusal> {
    let LedgerEntry { event: bytes, chain, ids, evidence } = entry;
    let recorded = Recorded::decode(&bytes).map_err(|unreadable| {
        tracing::error!(%unreadable, "a stored event cannot be read");
        Refusal::Internal
    })?;
    let fact =
        pb::LedgerEvent { chain: chain.bytes().to_vec().into(), ..event::event(&recorded, &ids, policy) };
    let shown = match evidence {
        Some(evidence) => pb::LedgerEvent {
            actor: evidence.actor,
            channel: evidence.channel,
            notice: evidence.notice,
            request_id: evidence.request.request_id.to_string(),
            ..fact
        },
        None => fact,
    };
    Ok((recorded.revision, shown))
}
