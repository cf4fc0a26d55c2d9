//! Cerbos, a policy decision point of the same shape: gRPC over a Unix socket, a policy as data, a server beside the
//! caller.

use super::{CALLERS, CONNECTIONS, report};
use crate::accounts::{id, scattered};
use crate::bench::{Bench, Goal};
use crate::callers::{Slice, in_a_loop};
use crate::kernel;
use crate::process::Process;
use crate::raw;
use crate::slices::{Spread, in_turn};
use crate::unary::Asking;
use bytes::Bytes;
use prost::Message;
use prost_types::value::Kind;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Says where its binary is; `./dev bench peers` installs the npm package that brings it, and sets this.
const BINARY: &str = "CONSENT_CERBOS";
const PATH: &str = "/cerbos.svc.v1.CerbosService/CheckResources";
const EFFECT_ALLOW: i32 = 1;
const EFFECT_DENY: i32 = 2;

/// The question as a policy of its own: the caller has to bring along all that is known of the account.
const POLICY: &str = r#"
apiVersion: api.cerbos.dev/v1
resourcePolicy:
  version: default
  resource: artifact
  rules:
    - actions: ["train"]
      effect: EFFECT_ALLOW
      roles: ["collector"]
      condition:
        match:
          all:
            of:
              - expr: R.attr.choice != "out"
              - expr: R.attr.plan in ["free", "pro", "student"]
              - expr: R.attr.kind in ["input", "output", "document"]
              - expr: R.attr.collected_at >= R.attr.allow_since
"#;

pub(super) async fn run(bench: &mut Bench, asking: &Asking, accounts: u64) -> anyhow::Result<()> {
    let Some(binary) = std::env::var_os(BINARY).map(PathBuf::from).filter(|path| path.is_file()) else {
        bench.note(&format!(
            "Cerbos was not measured: {BINARY} names no file (tried: npm, @cerbos/cerbos-linux-x64)"
        ));
        return Ok(());
    };
    let home = tempfile::tempdir()?;
    let socket = home.path().join("grpc.sock");
    let process = bench.cores.on_the_servers(|| start(&binary, home.path()))?;
    process.line("listening", |line| line.contains("Starting gRPC server").then_some(())).await?;
    let checks = Checks::open(&socket, accounts, process.id()).await?;
    let length = bench.slice();
    let pairs = in_turn(
        bench.slices(),
        async || checks.slice(length).await,
        async || asking.slice(CALLERS, length).await,
    )
    .await?;
    report(bench, "peers/cerbos/64", &pairs);
    let resident = kernel::resident(process.id())? as f64;
    bench.figure(
        "peers/cerbos/memory",
        Spread::of([resident]),
        "B",
        "whatever the number of accounts",
        Goal::None,
    );
    bench.note(
        "Cerbos does more: any resource, any action, roles, conditions in CEL, query plans, an audit log.",
    );
    bench.note(
        "Cerbos does less: it knows nobody; plan, choice and history of the account come with each question, so whoever \
         asks must have them, fresh, and no opt-out is ever confirmed.",
    );
    Ok(())
}

fn start(binary: &Path, home: &Path) -> anyhow::Result<Process> {
    let policies = home.join("policies");
    std::fs::create_dir(&policies)?;
    std::fs::write(policies.join("artifact.yaml"), POLICY)?;
    let at = |name: &str| home.join(name).display().to_string();
    let config = format!(
        "server:\n  httpListenAddr: \"unix:{}\"\n  grpcListenAddr: \"unix:{}\"\n\
         telemetry:\n  disabled: true\n\
         storage:\n  driver: disk\n  disk:\n    directory: \"{}\"\n    watchForChanges: false\n",
        at("http.sock"),
        at("grpc.sock"),
        policies.display()
    );
    std::fs::write(home.join("config.yaml"), config)?;
    let arguments =
        ["server".to_owned(), "--log-level=INFO".to_owned(), format!("--config={}", at("config.yaml"))];
    Process::run("cerbos", binary, &arguments)
}

struct Checks {
    channels: Arc<[Channel]>,
    accounts: u64,
    server: u32,
    asked: Arc<AtomicU64>,
}

impl Checks {
    async fn open(socket: &Path, accounts: u64, server: u32) -> anyhow::Result<Checks> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let mut channels = Vec::new();
        while channels.len() < CONNECTIONS {
            // It says that it starts before it listens.
            match endpoint.connect().await {
                Ok(channel) => channels.push(channel),
                Err(_) if !socket.exists() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Ok(Checks { channels: channels.into(), accounts, server, asked: Arc::default() })
    }

    async fn slice(&self, length: Duration) -> anyhow::Result<Slice> {
        let (channels, asked, accounts) =
            (Arc::clone(&self.channels), Arc::clone(&self.asked), self.accounts);
        in_a_loop(self.server, CALLERS, length, move |caller, _| {
            let channel = channels[caller % channels.len()].clone();
            let artifact = asked.fetch_add(1, Ordering::Relaxed);
            let account = scattered(artifact) % accounts;
            let request = Bytes::from(request(account, artifact).encode_to_vec());
            async move {
                let answer = raw::unary(channel, PATH, request).await?;
                let answer = Response::decode(answer).map_err(|wrong| Status::internal(wrong.to_string()))?;
                let effect = answer.results.first().and_then(|result| result.actions.get("train"));
                let wanted = if account.is_multiple_of(9) { EFFECT_DENY } else { EFFECT_ALLOW };
                if effect == Some(&wanted) {
                    Ok(())
                } else {
                    Err(Status::internal("cerbos decides otherwise"))
                }
            }
        })
        .await
    }
}

fn request(account: u64, artifact: u64) -> Request {
    let text = |text: &str| prost_types::Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let number = |number: f64| prost_types::Value { kind: Some(Kind::NumberValue(number)) };
    let attr = HashMap::from([
        ("plan".to_owned(), text("free")),
        ("choice".to_owned(), text(if account.is_multiple_of(9) { "out" } else { "unset" })),
        ("kind".to_owned(), text("input")),
        ("collected_at".to_owned(), number(1_790_000_000.0)),
        ("allow_since".to_owned(), number(1_700_000_000.0)),
    ]);
    let id = format!("artifact-{artifact:012}");
    let resource = Resource { kind: "artifact".to_owned(), id, attr };
    Request {
        principal: Some(Principal { id: self::id(account), roles: vec!["collector".to_owned()] }),
        resources: vec![Entry { actions: vec!["train".to_owned()], resource: Some(resource) }],
    }
}

/// `cerbos.request.v1.CheckResourcesRequest`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "3")]
    principal: Option<Principal>,
    #[prost(message, repeated, tag = "4")]
    resources: Vec<Entry>,
}

/// `cerbos.engine.v1.Principal`.
#[derive(Clone, PartialEq, Message)]
struct Principal {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "3")]
    roles: Vec<String>,
}

/// `cerbos.request.v1.CheckResourcesRequest.ResourceEntry`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, repeated, tag = "1")]
    actions: Vec<String>,
    #[prost(message, optional, tag = "2")]
    resource: Option<Resource>,
}

/// `cerbos.engine.v1.Resource`.
#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(map = "string, message", tag = "4")]
    attr: HashMap<String, prost_types::Value>,
}

/// `cerbos.response.v1.CheckResourcesResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "2")]
    results: Vec<ResultEntry>,
}

/// `cerbos.response.v1.CheckResourcesResponse.ResultEntry`.
#[derive(Clone, PartialEq, Message)]
struct ResultEntry {
    #[prost(map = "string, int32", tag = "2")]
    actions: HashMap<String, i32>,
}
