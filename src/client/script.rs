//! A sidecar that says what a test tells it to, on a real socket and a runtime of its own: killed with it, whole.

use crate::pb::decision_service_server::{DecisionService, DecisionServiceServer};
use crate::pb::{
    BatchCanTrainRequest, BatchCanTrainResponse, CanTrainAnswer, CanTrainRequest, CanTrainResponse, Position,
    StreamCanTrainRequest, StreamCanTrainResponse,
};
use crate::serve;
use crate::socket::listen_unix;
use consent_core::decision::Reason;
use consent_core::words::Span;
use std::collections::VecDeque;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, oneshot};
use tokio_stream::Pending;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// One line of a script; the last of them is said again and again.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Say(CanTrainResponse),
    Late(Duration, CanTrainResponse),
    Refuse(Status),
    Never,
}

/// ALLOW, valid for so long.
pub(super) fn allow(valid_for: Span) -> CanTrainResponse {
    CanTrainResponse {
        decision: 1,
        reason: Reason::PlanDefaultIn.number().into(),
        r#final: false,
        position: Some(Position { epoch: vec![1; 16].into(), revision: 7 }),
        valid_for: Some(crate::convert::to_duration(valid_for)),
    }
}

/// DENY, for this reason.
pub(super) fn deny(reason: Reason) -> CanTrainResponse {
    CanTrainResponse { decision: 2, reason: reason.number().into(), valid_for: None, ..allow(Span::ZERO) }
}

/// What was asked.
#[derive(Debug, Default)]
struct Heard {
    lines: VecDeque<Line>,
    questions: Vec<CanTrainRequest>,
    timeouts: Vec<String>,
    batches: Vec<BatchCanTrainRequest>,
    /// How many batches were asked at once, now and at most.
    now: usize,
    most: usize,
    /// Where a batch waits for others.
    meet: Option<Arc<Barrier>>,
}

impl Heard {
    fn line(&mut self) -> Line {
        let is_last = self.lines.len() == 1;
        let line = if is_last { self.lines.front().cloned() } else { self.lines.pop_front() };
        line.expect("a script has a line")
    }
}

/// The sidecar.
pub(super) struct Scripted {
    home: TempDir,
    heard: Arc<Mutex<Heard>>,
    runtime: Option<Runtime>,
}

impl Scripted {
    /// One that says these lines.
    pub(super) async fn start(lines: impl Into<VecDeque<Line>>) -> Scripted {
        let heard = Arc::new(Mutex::new(Heard { lines: lines.into(), ..Heard::default() }));
        let home = tempfile::tempdir().expect("a directory");
        let mut scripted = Scripted { home, heard, runtime: None };
        scripted.restart().await;
        scripted
    }

    /// Starts it again, at the same place.
    pub(super) async fn restart(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (path, service) = (self.path(), Service(Arc::clone(&self.heard)));
        let listener = runtime.spawn(async move { listen_unix(&path).await });
        let listener = listener.await.expect("it listens").expect("a socket");
        let server = serve::server().add_service(DecisionServiceServer::new(service));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        self.runtime = Some(runtime);
    }

    /// Ends it with all its connections.
    pub(super) async fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let stop = move || runtime.shutdown_timeout(Duration::from_secs(60));
            tokio::task::spawn_blocking(stop).await.expect("it ends");
        }
    }

    /// Hangs until what this gives is dropped, as a stopped process does: its connections stand, new ones wait to be
    /// taken, and nothing is said.
    pub(super) async fn hang(&self) -> mpsc::SyncSender<()> {
        let (goes_on, hangs) = mpsc::sync_channel(0);
        let (begins, begun) = oneshot::channel();
        let runtime = self.runtime.as_ref().expect("it runs");
        // Its only worker, for which nothing else can stand in.
        runtime.spawn(async move {
            begins.send(()).expect("it is waited for");
            hangs.recv()
        });
        begun.await.expect("it hangs");
        goes_on
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    pub(super) fn endpoint(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    /// What it says from now on.
    pub(super) fn say(&self, lines: impl Into<VecDeque<Line>>) {
        self.heard.lock().unwrap().lines = lines.into();
    }

    /// Batches are answered from now on when so many are asked at once.
    pub(super) fn meet(&self, many: usize) {
        self.heard.lock().unwrap().meet = Some(Arc::new(Barrier::new(many)));
    }

    /// How many batches were asked at once, at most.
    pub(super) fn most(&self) -> usize {
        self.heard.lock().unwrap().most
    }

    pub(super) fn questions(&self) -> Vec<CanTrainRequest> {
        self.heard.lock().unwrap().questions.clone()
    }

    /// `grpc-timeout` of each question.
    pub(super) fn timeouts(&self) -> Vec<String> {
        self.heard.lock().unwrap().timeouts.clone()
    }

    pub(super) fn batches(&self) -> Vec<BatchCanTrainRequest> {
        self.heard.lock().unwrap().batches.clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // A test must not wait inside its own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service(Arc<Mutex<Heard>>);

#[tonic::async_trait]
impl DecisionService for Service {
    async fn can_train(
        &self,
        request: Request<CanTrainRequest>,
    ) -> Result<Response<CanTrainResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout").expect("a deadline");
        let timeout = timeout.to_str().expect("text").to_owned();
        let line = {
            let mut heard = self.0.lock().unwrap();
            heard.timeouts.push(timeout);
            heard.questions.push(request.into_inner());
            heard.line()
        };
        match line {
            Line::Say(answer) => Ok(Response::new(answer)),
            Line::Late(delay, answer) => {
                tokio::time::sleep(delay).await;
                Ok(Response::new(answer))
            }
            Line::Refuse(status) => Err(status),
            Line::Never => pending().await,
        }
    }

    /// Each question takes a line of its own.
    async fn batch_can_train(
        &self,
        request: Request<BatchCanTrainRequest>,
    ) -> Result<Response<BatchCanTrainResponse>, Status> {
        let request = request.into_inner();
        let meet = {
            let mut heard = self.0.lock().unwrap();
            heard.batches.push(request.clone());
            heard.now += 1;
            heard.most = heard.most.max(heard.now);
            heard.meet.clone()
        };
        if let Some(meet) = meet {
            meet.wait().await;
        }
        let mut heard = self.0.lock().unwrap();
        heard.now -= 1;
        let mut batch = BatchCanTrainResponse { valid_for: None, ..BatchCanTrainResponse::default() };
        for _ in &request.requests {
            match heard.line() {
                Line::Say(said) | Line::Late(_, said) => {
                    let CanTrainResponse { decision, reason, r#final, position, valid_for } = said;
                    batch.answers.push(CanTrainAnswer { decision, reason, r#final });
                    batch.position = position;
                    batch.valid_for = batch.valid_for.or(valid_for);
                }
                Line::Refuse(status) => return Err(status),
                // One answer is missing.
                Line::Never => {}
            }
        }
        Ok(Response::new(batch))
    }

    type StreamCanTrainStream = Pending<Result<StreamCanTrainResponse, Status>>;

    /// Nobody who is tested here asks for a corpus.
    async fn stream_can_train(
        &self,
        _: Request<Streaming<StreamCanTrainRequest>>,
    ) -> Result<Response<Self::StreamCanTrainStream>, Status> {
        pending().await
    }
}
