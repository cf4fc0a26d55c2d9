//! The authority that is measured: the released binary as a process of its own, over a ledger in Postgres.

use crate::bench::Bench;
use crate::ledger::{CALLER, POLICY, PRODUCT};
use crate::process::Process;
use anyhow::Context;
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::{
    Channel as Via, Choice, Confirmation, GetConfirmationRequest, Party, PublishPolicyRequest, Receipt,
    SetConsentRequest, WriteContext, party,
};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

/// Longer than any write takes.
const SOON: Duration = Duration::from_secs(60);

/// A replica with a policy in force.
pub(crate) struct Replica {
    process: Process,
    /// Where it listens.
    pub(crate) url: String,
}

impl Replica {
    /// Starts it on the servers' core.
    pub(crate) async fn start(bench: &Bench, store: &str) -> anyhow::Result<Replica> {
        let words = ["authority", "--listen", "127.0.0.1:0", "--store", store].map(str::to_owned);
        let process = bench.cores.on_the_servers(|| Process::start("authority", &words))?;
        let url = format!("http://{}", process.listening().await?);
        let replica = Replica { process, url };
        let publish = PublishPolicyRequest { context: Some(context()), toml: POLICY.to_owned() };
        PolicyServiceClient::new(replica.connect().await?).publish_policy(within(publish)).await?;
        Ok(replica)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// So many writers, each with a connection of its own.
    pub(crate) async fn writers(&self, count: usize) -> anyhow::Result<Arc<[Writer]>> {
        let mut writers = Vec::new();
        for _ in 0..count {
            writers.push(Writer(ConsentServiceClient::new(self.connect().await?)));
        }
        Ok(writers.into())
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(self.url.clone())?.tcp_nodelay(true);
        endpoint.connect().await.context("the authority does not answer")
    }
}

/// Who records choices.
#[derive(Debug, Clone)]
pub(crate) struct Writer(ConsentServiceClient<Channel>);

impl Writer {
    /// Opts out; it is RECORDED then.
    pub(crate) async fn opt_out(&mut self, account: String) -> Result<Receipt, Status> {
        let choice = SetConsentRequest {
            context: Some(context()),
            party: Some(Party { party: Some(party::Party::Account(account)) }),
            product: PRODUCT.to_owned(),
            choice: Choice::Out.into(),
            expected_revision: None,
        };
        let receipt = self.0.set_consent(within(choice)).await?.into_inner().receipt;
        receipt.filter(|receipt| receipt.changed).ok_or_else(|| Status::internal("nothing was recorded"))
    }

    /// Waits until that is EFFECTIVE.
    pub(crate) async fn effective(&mut self, receipt: Receipt) -> Result<(), Status> {
        let Receipt { position, chain, .. } = receipt;
        let question = GetConfirmationRequest { position, chain, wait_effective: true };
        let said = self.0.get_confirmation(within(question)).await?.into_inner().confirmation();
        if said == Confirmation::Effective { Ok(()) } else { Err(Status::internal("it is not EFFECTIVE")) }
    }
}

fn context() -> WriteContext {
    WriteContext {
        request_id: Uuid::new_v4().to_string(),
        actor: CALLER.to_owned(),
        channel: Via::Service.into(),
        notice: String::new(),
        wait_effective: false,
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(SOON);
    request
}
