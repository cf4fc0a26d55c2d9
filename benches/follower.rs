//! The sidecar that follows real authorities: the released binary as a process of its own.

use crate::bench::Bench;
use crate::node::{Port, Server};
use anyhow::Context;
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{GetStatusRequest, GetStatusResponse, SidecarState};
use std::path::Path;
use std::time::Duration;
use tonic::transport::Channel;

/// How often it is asked how far it is, and for how long.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A sidecar.
pub(crate) struct Follower {
    pub(crate) server: Server,
    status: SidecarServiceClient<Channel>,
}

impl Follower {
    /// Starts one that knows these authorities, a comma between each two, and waits until it may allow.
    pub(crate) async fn live(bench: &Bench, authorities: &str) -> anyhow::Result<Follower> {
        let arguments = |socket: &str| {
            ["sidecar", "--listen", "127.0.0.1:0", "--authority", authorities, "--socket", socket]
                .map(str::to_owned)
                .to_vec()
        };
        let program = Path::new(env!("CARGO_BIN_EXE_consent"));
        let server = Server::start(bench, "sidecar", program, arguments).await?;
        let status = SidecarServiceClient::new(server.connect(Port::Tcp).await?);
        let mut follower = Follower { server, status };
        follower.until("LIVE", |status| status.state() == SidecarState::Live).await?;
        Ok(follower)
    }

    /// Waits until it has a lease that was granted just now: nearly all of this length is left.
    pub(crate) async fn until_leased_anew(&mut self, lease: Duration) -> anyhow::Result<()> {
        let left = |status: &GetStatusResponse| {
            status.lease_left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
        };
        self.until("a new lease", |status| left(status) * 20 >= lease * 19).await?;
        Ok(())
    }

    /// The address of the authority that it follows.
    pub(crate) async fn followed(&mut self) -> anyhow::Result<String> {
        let status = self.until("an authority", |status| !status.authority.is_empty()).await?;
        Ok(status.authority)
    }

    async fn until(
        &mut self,
        what: &str,
        is_right: impl Fn(&GetStatusResponse) -> bool,
    ) -> anyhow::Result<GetStatusResponse> {
        let wait = async {
            loop {
                let status = self.status.get_status(GetStatusRequest {}).await?.into_inner();
                if is_right(&status) {
                    return anyhow::Ok(status);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .with_context(|| format!("the sidecar does not come to {what}"))?
    }
}
