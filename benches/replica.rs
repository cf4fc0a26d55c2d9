//! The authority that is measured: the released binary as a process of its own, over a ledger in Postgres.

use crate::bench::Bench;
use crate::ledger::{CALLER, POLICY, PRODUCT};
use crate::process::Process;
use anyhow::{Context, ensure};
use consent::clock;
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::{
    Channel as Via, Choice, Confirmation, Party, PublishPolicyRequest, Receipt, SetConsentRequest,
    SetPlanRequest, WriteContext, party,
};
use consent_core::confirm::Terms;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

/// An address of the kernel's choice.
pub(crate) const ANYWHERE: &str = "127.0.0.1:0";
/// Longer than any write takes.
const SOON: Duration = Duration::from_secs(60);
/// How often one that starts is asked whether it is ready.
const LOOK: Duration = Duration::from_millis(5);

/// A replica.
pub(crate) struct Replica {
    process: Process,
    /// Where it listens.
    pub(crate) url: String,
}

impl Replica {
    /// Starts the first of a ledger on the servers' core, and publishes the seed's policy.
    pub(crate) async fn start(bench: &Bench, store: &str) -> anyhow::Result<Replica> {
        let replica = Replica::start_at(bench, store, ANYWHERE, &Terms::default()).await?;
        replica.publish(POLICY).await?;
        Ok(replica)
    }

    /// Starts one at this `host:port`, with these terms; it is ready then.
    pub(crate) async fn start_at(
        bench: &Bench,
        store: &str,
        listen: &str,
        terms: &Terms,
    ) -> anyhow::Result<Replica> {
        let mut words = ["authority", "--listen", listen, "--store", store].map(str::to_owned).to_vec();
        words.extend(arguments(terms));
        let process = bench.cores.on_the_servers(|| Process::start("authority", &words))?;
        let url = format!("http://{}", process.listening().await?);
        let replica = Replica { process, url };
        tokio::time::timeout(SOON, replica.ready()).await.context("the authority is never ready")??;
        Ok(replica)
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let mut health = HealthClient::new(self.connect().await?);
        let probe = HealthCheckRequest { service: String::new() };
        while health.check(probe.clone()).await?.into_inner().status() != ServingStatus::Serving {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Puts a policy in force.
    pub(crate) async fn publish(&self, toml: &str) -> anyhow::Result<()> {
        let publish = PublishPolicyRequest { context: Some(context()), toml: toml.to_owned() };
        PolicyServiceClient::new(self.connect().await?).publish_policy(within(publish)).await?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    /// kill -9.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and its end.
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        let status = self.process.terminate().await?;
        ensure!(status.success(), "the authority ended with {status}");
        Ok(())
    }

    /// So many writers, each with a connection of its own.
    pub(crate) async fn writers(&self, count: usize) -> anyhow::Result<Arc<[Writer]>> {
        let mut writers = Vec::new();
        for _ in 0..count {
            writers.push(self.writer().await?);
        }
        Ok(writers.into())
    }

    /// One of them.
    pub(crate) async fn writer(&self) -> anyhow::Result<Writer> {
        Ok(Writer(ConsentServiceClient::new(self.connect().await?)))
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(self.url.clone())?.tcp_nodelay(true);
        endpoint.connect().await.context("the authority does not answer")
    }
}

fn arguments(terms: &Terms) -> Vec<String> {
    let values = terms.values();
    let spans = [
        ("--sidecar-lease", values.sidecar_lease),
        ("--replica-lease", values.replica_lease),
        ("--answer-hold", values.hold),
        ("--slack", values.slack),
        ("--poll", values.poll),
    ];
    let spans = spans.into_iter().flat_map(|(flag, span)| [flag.to_owned(), format!("{}ms", span.millis())]);
    spans.chain(["--drift-ppm".to_owned(), values.drift_ppm.to_string()]).collect()
}

/// Who records choices and plans.
#[derive(Debug, Clone)]
pub(crate) struct Writer(ConsentServiceClient<Channel>);

impl Writer {
    /// Opts out; it is RECORDED then.
    pub(crate) async fn opt_out(&mut self, account: String) -> Result<Receipt, Status> {
        self.choose_out(account, context()).await
    }

    /// Opts out and waits until that is EFFECTIVE. Gives how long that took, in milliseconds, from the stamp of
    /// RECORDED: the ledger's, which is before the commit. Both ends are rounded down, to a millisecond.
    pub(crate) async fn opt_out_effective(&mut self, account: String) -> Result<f64, Status> {
        let context = WriteContext { wait_effective: true, ..context() };
        let receipt = self.choose_out(account, context).await?;
        let effective = clock::wall();
        if receipt.confirmation() != Confirmation::Effective {
            return Err(Status::internal("it is not EFFECTIVE"));
        }
        Ok((effective.millis() - millis(&receipt)?) as f64)
    }

    async fn choose_out(&mut self, account: String, context: WriteContext) -> Result<Receipt, Status> {
        let choice = SetConsentRequest {
            context: Some(context),
            party: Some(party(account)),
            product: PRODUCT.to_owned(),
            choice: Choice::Out.into(),
            expected_revision: None,
        };
        recorded(self.0.set_consent(within(choice)).await?.into_inner().receipt)
    }

    /// Puts an account on a plan.
    pub(crate) async fn set_plan(&mut self, account: String, plan: &str) -> Result<Receipt, Status> {
        let change = SetPlanRequest {
            context: Some(context()),
            party: Some(party(account)),
            product: PRODUCT.to_owned(),
            plan: plan.to_owned(),
            expected_revision: None,
        };
        recorded(self.0.set_plan(within(change)).await?.into_inner().receipt)
    }
}

/// When it was recorded, in Unix milliseconds by the store's clock.
pub(crate) fn millis(receipt: &Receipt) -> Result<i64, Status> {
    let stamp = receipt.recorded_at.ok_or_else(|| Status::internal("a receipt without a stamp"))?;
    Ok(stamp.seconds * 1000 + i64::from(stamp.nanos / 1_000_000))
}

fn recorded(receipt: Option<Receipt>) -> Result<Receipt, Status> {
    receipt.filter(|receipt| receipt.changed).ok_or_else(|| Status::internal("nothing was recorded"))
}

fn party(account: String) -> Party {
    Party { party: Some(party::Party::Account(account)) }
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
