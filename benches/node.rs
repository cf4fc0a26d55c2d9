//! The sidecar that is measured: the released binary as a process of its own, mirroring a made-up ledger, LIVE.

use crate::authority::Authority;
use crate::bench::Bench;
use crate::process::Process;
use anyhow::{Context, ensure};
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{GetStatusRequest, GetStatusResponse, SidecarState};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// How often a sidecar that loads is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// How long anything may take that is only waited for: 10^7 heads, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which way callers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Unix,
    Tcp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Port::Unix => "unix",
            Port::Tcp => "tcp",
        })
    }
}

/// A server process that answers on TCP and on a Unix socket.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped before the directory that it listens in.
    process: Process,
    address: String,
    home: TempDir,
}

impl Server {
    /// Starts it on the servers' core; `arguments` gets the path of the socket that it is to listen on.
    pub(crate) async fn start(
        bench: &Bench,
        name: &str,
        program: &Path,
        arguments: impl FnOnce(&str) -> Vec<String>,
    ) -> anyhow::Result<Server> {
        let home = tempfile::tempdir()?;
        let socket = home.path().join("socket").display().to_string();
        let arguments = arguments(&socket);
        let process = bench.cores.on_the_servers(|| Process::run(name, program, &arguments))?;
        let address = process.listening().await?;
        Ok(Server { process, address, home })
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self, port: Port) -> anyhow::Result<Channel> {
        let url = match port {
            Port::Unix => format!("unix://{}", self.home.path().join("socket").display()),
            Port::Tcp => format!("http://{}", self.address),
        };
        Ok(Endpoint::from_shared(url)?.connect().await?)
    }

    /// It, to read what it logs.
    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// A sidecar and what it follows.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) authority: Authority,
    pub(crate) accounts: u64,
    status: SidecarServiceClient<Channel>,
}

impl Node {
    /// Starts a sidecar that has nothing yet, and the authority that it waits for.
    pub(crate) async fn start(bench: &Bench, accounts: u64) -> anyhow::Result<Node> {
        let authority = Authority::start(accounts).await?;
        let url = authority.url.clone();
        let arguments = |socket: &str| {
            let words = [
                "sidecar",
                "--listen",
                "127.0.0.1:0",
                "--authority",
                &url,
                "--socket",
                socket,
                "--log-level",
                "info",
            ];
            words.map(str::to_owned).to_vec()
        };
        let server =
            Server::start(bench, "sidecar", Path::new(env!("CARGO_BIN_EXE_consent")), arguments).await?;
        let status = SidecarServiceClient::new(server.connect(Port::Tcp).await?);
        Ok(Node { server, authority, accounts, status })
    }

    /// The same, when it mirrors all of them and may allow.
    pub(crate) async fn live(bench: &Bench, accounts: u64) -> anyhow::Result<Node> {
        let mut node = Node::start(bench, accounts).await?;
        node.until_live(accounts).await?;
        Ok(node)
    }

    /// Waits until it mirrors so many accounts and may allow.
    pub(crate) async fn until_live(&mut self, accounts: u64) -> anyhow::Result<()> {
        self.until(|status| status.state() == SidecarState::Live && status.accounts == accounts).await?;
        self.accounts = accounts;
        Ok(())
    }

    /// Waits until what it says of itself is right.
    pub(crate) async fn until(
        &mut self,
        is_right: impl Fn(&GetStatusResponse) -> bool,
    ) -> anyhow::Result<()> {
        let wait = async {
            loop {
                let status = self.status.get_status(GetStatusRequest {}).await?.into_inner();
                if is_right(&status) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.context("the sidecar is not where it should be")?
    }
}

/// So many connections of their own.
pub(crate) async fn connections(server: &Server, port: Port, count: usize) -> anyhow::Result<Vec<Channel>> {
    ensure!(count > 0, "a caller needs a connection");
    let mut channels = Vec::with_capacity(count);
    for _ in 0..count {
        channels.push(server.connect(port).await?);
    }
    Ok(channels)
}
