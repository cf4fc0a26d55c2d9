//! PolicyService: the rule book goes in as a file, and comes out as it went in.

use super::writes::{Writes, deadline};
use crate::metrics::Method;
use crate::store::Reader;
use consent::convert::{policy as wire, to_timestamp};
use consent::pb::{self, policy_service_server::PolicyService};
use consent::status::status;
use consent_core::policy::PolicyFile;
use consent_core::refusal::Refusal;
use consent_core::words::Position;
use tonic::{Request, Response, Status};

/// The service over one store's readers.
pub(crate) struct Policy<R> {
    pub(crate) writes: Writes,
    pub(crate) reader: R,
}

#[tonic::async_trait]
impl<R: Reader> PolicyService for Policy<R> {
    async fn publish_policy(
        &self,
        request: Request<pb::PublishPolicyRequest>,
    ) -> Result<Response<pb::PublishPolicyResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let write = wire::publish(&request);
        let recorded = self.writes.make(Method::PublishPolicy, write, Some(request.toml), deadline).await?;
        Ok(Response::new(pb::PublishPolicyResponse {
            receipt: Some(recorded.receipt),
            warnings: recorded.warnings.iter().map(wire::warning).collect(),
        }))
    }

    async fn get_policy(
        &self,
        _request: Request<pb::GetPolicyRequest>,
    ) -> Result<Response<pb::GetPolicyResponse>, Status> {
        let policy = self.in_force().await.map_err(status)?;
        Ok(Response::new(policy))
    }
}

impl<R: Reader> Policy<R> {
    async fn in_force(&self) -> Result<pb::GetPolicyResponse, Refusal> {
        let published = self.reader.policy_document().await?;
        let (toml, revision, recorded_at) = published.ok_or(Refusal::NotFound { what: "policy" })?;
        let epoch = self.reader.head().await?.epoch;
        // Name and version are the text's own, so they cannot be those of another publication.
        let file = PolicyFile::parse(&toml).map_err(|_| {
            tracing::error!(%revision, "a published policy file can no longer be read");
            Refusal::Internal
        })?;
        let (name, version) = (file.document().name.as_str().to_owned(), file.document().version);
        Ok(pb::GetPolicyResponse {
            toml,
            version,
            name,
            position: Some(Position { epoch, revision }.into()),
            published_at: Some(to_timestamp(recorded_at)),
        })
    }
}
