//! One authority on one store, a wire that can be cut, and one sidecar: each a process of its own.

use crate::clients::{Authority, ID_MARK, Node};
use crate::process::Process;
use crate::relay::Relay;
use anyhow::{Context, ensure};
use std::fmt;
use std::path::PathBuf;
use tempfile::TempDir;

#[path = "../support/postgres.rs"]
mod postgres;
use postgres::Postgres;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// The embedded one, in a file.
    Sqlite,
    /// A private Postgres server.
    Postgres,
}

impl StoreKind {
    /// Both.
    pub(crate) const ALL: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Postgres];
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StoreKind::Sqlite => "sqlite",
            StoreKind::Postgres => "postgres",
        })
    }
}

/// The deployment's values, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// T_S.
    pub(crate) sidecar_lease: u64,
    /// T_R.
    pub(crate) replica_lease: u64,
    /// H.
    pub(crate) answer_hold: u64,
    /// rho, in millionths.
    pub(crate) drift_ppm: u64,
    /// sigma.
    pub(crate) slack: u64,
    /// delta.
    pub(crate) poll: u64,
}

impl Terms {
    /// The product's own.
    pub(crate) const DEFAULT: Terms = Terms {
        sidecar_lease: 3000,
        replica_lease: 6000,
        answer_hold: 50,
        drift_ppm: 10_000,
        slack: 20,
        poll: 20,
    };
    /// Short leases, so that a trial need not wait for long ones.
    pub(crate) const SHORT: Terms = Terms { sidecar_lease: 1000, replica_lease: 2000, ..Terms::DEFAULT };

    fn arguments(self) -> Vec<String> {
        let ms = |value: u64| format!("{value}ms");
        [
            ("--sidecar-lease", ms(self.sidecar_lease)),
            ("--replica-lease", ms(self.replica_lease)),
            ("--answer-hold", ms(self.answer_hold)),
            ("--drift-ppm", self.drift_ppm.to_string()),
            ("--slack", ms(self.slack)),
            ("--poll", ms(self.poll)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}

/// The processes of one trial.
pub(crate) struct Cluster {
    kind: StoreKind,
    terms: Terms,
    url: String,
    // Dropped in this order: the processes before what they stand on.
    sidecar: Option<(Process, String)>,
    authority: Option<(Process, String)>,
    relay: Relay,
    /// The Redis of the sidecar.
    redis: Option<String>,
    _postgres: Option<Postgres>,
    home: TempDir,
    // What ended processes had written.
    logs: Vec<String>,
}

impl Cluster {
    /// A fresh store, migrated, with an authority on it; no sidecar yet.
    pub(crate) async fn start(kind: StoreKind, terms: Terms) -> anyhow::Result<Cluster> {
        let home = tempfile::tempdir()?;
        let (url, postgres) = match kind {
            StoreKind::Sqlite => (format!("sqlite:{}", home.path().join("store").display()), None),
            StoreKind::Postgres => {
                let postgres = Postgres::start().map_err(anyhow::Error::msg)?;
                (postgres.fresh_database().map_err(anyhow::Error::msg)?, Some(postgres))
            }
        };
        migrate(&url).await?;
        let relay = Relay::start().await?;
        let logs = Vec::new();
        let mut cluster = Cluster {
            kind,
            terms,
            url,
            sidecar: None,
            authority: None,
            relay,
            redis: None,
            _postgres: postgres,
            home,
            logs,
        };
        cluster.start_authority().await?;
        Ok(cluster)
    }

    /// The same with the seed's policy in force and a sidecar that is LIVE.
    pub(crate) async fn live(kind: StoreKind, terms: Terms) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::start(kind, terms).await?;
        cluster.authority().await?.publish_policy().await?;
        cluster.start_sidecar().await?;
        cluster.node().await?.until(consent::pb::SidecarState::Live).await?;
        Ok(cluster)
    }

    /// The same with a Redis for the sidecar's durable copy.
    pub(crate) async fn live_with_redis(
        kind: StoreKind,
        terms: Terms,
        redis: String,
    ) -> anyhow::Result<Cluster> {
        let mut cluster = Cluster::start(kind, terms).await?;
        cluster.redis = Some(redis);
        cluster.authority().await?.publish_policy().await?;
        cluster.start_sidecar().await?;
        cluster.node().await?.until(consent::pb::SidecarState::Live).await?;
        Ok(cluster)
    }

    /// Which store it stands on.
    pub(crate) const fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Its terms.
    pub(crate) const fn terms(&self) -> Terms {
        self.terms
    }

    /// The wire between sidecar and authority.
    pub(crate) const fn wire(&self) -> &Relay {
        &self.relay
    }

    /// Starts the authority, on a port of the kernel's choice, and leads the wire to it.
    pub(crate) async fn start_authority(&mut self) -> anyhow::Result<()> {
        let process = self.spawn_authority()?;
        let address = process.listening().await?;
        self.relay.lead_to(&address);
        self.authority = Some((process, address));
        Ok(())
    }

    /// Starts an authority and does not wait for it: for those who kill it while it starts.
    pub(crate) fn spawn_authority(&self) -> anyhow::Result<Process> {
        let mut arguments = words(&["authority", "--listen", "127.0.0.1:0", "--replica", "trial", "--store"]);
        arguments.push(self.url.clone());
        arguments.extend(self.terms.arguments());
        Process::start("the authority", &arguments)
    }

    /// kill -9 of the authority.
    pub(crate) fn kill_authority(&mut self) -> anyhow::Result<()> {
        let (process, _) = self.authority.take().context("no authority runs")?;
        self.logs.extend(process.lines());
        process.kill()
    }

    /// Starts the sidecar on the wire.
    pub(crate) async fn start_sidecar(&mut self) -> anyhow::Result<()> {
        let upstream = self.relay.address().to_string();
        self.start_sidecar_at(&upstream).await
    }

    /// Starts the sidecar with this `host:port` as its authority.
    pub(crate) async fn start_sidecar_at(&mut self, upstream: &str) -> anyhow::Result<()> {
        let process = self.spawn_sidecar(upstream)?;
        let address = process.listening().await?;
        self.sidecar = Some((process, address));
        Ok(())
    }

    /// Starts the sidecar on the wire and does not wait: for those who ask from its first breath on.
    pub(crate) async fn start_sidecar_asking<T>(
        &mut self,
        ask: impl AsyncFnOnce(String) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let process = self.spawn_sidecar(&self.relay.address().to_string())?;
        let asked = ask(self.socket()).await?;
        let address = process.listening().await?;
        self.sidecar = Some((process, address));
        Ok(asked)
    }

    /// kill -9 of the sidecar.
    pub(crate) fn kill_sidecar(&mut self) -> anyhow::Result<()> {
        let (process, _) = self.sidecar.take().context("no sidecar runs")?;
        self.logs.extend(process.lines());
        process.kill()
    }

    /// The authority's process, to stop it and let it go on.
    pub(crate) fn authority_process(&self) -> anyhow::Result<&Process> {
        self.authority.as_ref().map(|(process, _)| process).context("no authority runs")
    }

    /// The sidecar's process, to stop it and let it go on.
    pub(crate) fn sidecar_process(&self) -> anyhow::Result<&Process> {
        self.sidecar.as_ref().map(|(process, _)| process).context("no sidecar runs")
    }

    /// Where the authority listens, `host:port`.
    pub(crate) fn authority_address(&self) -> anyhow::Result<&str> {
        self.authority.as_ref().map(|(_, at)| at.as_str()).context("no authority runs")
    }

    /// A caller of the authority.
    pub(crate) async fn authority(&self) -> anyhow::Result<Authority> {
        Authority::connect(self.authority_address()?).await
    }

    /// A caller of the sidecar over TCP.
    pub(crate) async fn node(&self) -> anyhow::Result<Node> {
        Node::connect(self.sidecar_address()?).await
    }

    /// Where the sidecar listens, `host:port`.
    pub(crate) fn sidecar_address(&self) -> anyhow::Result<&str> {
        self.sidecar.as_ref().map(|(_, at)| at.as_str()).context("no sidecar runs")
    }

    /// The sidecar's Unix socket as an address to connect to.
    pub(crate) fn socket(&self) -> String {
        format!("unix:{}", self.socket_path().display())
    }

    /// Lines of any process's log that hold an id of the trial: there must be none.
    pub(crate) fn ids_in_logs(&self) -> (usize, Vec<String>) {
        let running = [&self.authority, &self.sidecar].into_iter().flatten();
        let lines: Vec<String> =
            running.flat_map(|(process, _)| process.lines()).chain(self.logs.iter().cloned()).collect();
        (lines.len(), lines.into_iter().filter(|line| line.contains(ID_MARK)).collect())
    }

    fn socket_path(&self) -> PathBuf {
        self.home.path().join("node.sock")
    }

    fn spawn_sidecar(&self, upstream: &str) -> anyhow::Result<Process> {
        let mut arguments = words(&["sidecar", "--listen", "127.0.0.1:0", "--authority"]);
        arguments.push(format!("http://{upstream}"));
        arguments.push("--socket".to_owned());
        arguments.push(self.socket_path().display().to_string());
        if let Some(redis) = &self.redis {
            arguments.extend(["--redis".to_owned(), redis.clone()]);
        }
        Process::start("the sidecar", &arguments)
    }
}

async fn migrate(url: &str) -> anyhow::Result<()> {
    let status = Process::start("consent migrate", &words(&["migrate", "--store", url]))?.ended().await?;
    ensure!(status.success(), "consent migrate ended with {status}");
    Ok(())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Checks that no log line of a cluster holds an id, and counts it.
pub(crate) fn check_logs(tally: &mut crate::tally::Tally, cluster: &Cluster) {
    let (lines, leaks) = cluster.ids_in_logs();
    for leak in leaks.iter().take(3) {
        println!("        {leak}");
    }
    let kind = cluster.kind();
    tally.check(leaks.is_empty() && lines > 0, format_args!("{kind:8} {lines} log lines, none with an id"));
}
