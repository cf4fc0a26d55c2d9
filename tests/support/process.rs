//! Real processes, of the one binary above all: started, stopped, killed, and always reaped.
//!
//! A process says where it listens in its log (the line `listening`), so every port is the kernel's choice. All
//! that it writes is kept: a failed trial shows the end of it, and every trial searches it for ids. Shared by `#[path]`.

#![allow(dead_code, unreachable_pub, reason = "each program uses its part")]

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How long anything may take that a trial only waits for: a bound on hanging, no promise of the product.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    output: watch::Receiver<Vec<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Process {
    /// Starts the binary with these arguments.
    pub(crate) fn start(name: &str, arguments: &[String]) -> anyhow::Result<Process> {
        Process::run(name, Path::new(env!("CARGO_BIN_EXE_consent")), arguments)
    }

    /// The same, behind whoever else wants a processor.
    pub(crate) fn start_behind(name: &str, arguments: &[String]) -> anyhow::Result<Process> {
        let mut all = vec!["-n".to_owned(), "19".to_owned(), env!("CARGO_BIN_EXE_consent").to_owned()];
        all.extend_from_slice(arguments);
        // It becomes the program, so the process is the same.
        Process::run(name, Path::new("nice"), &all)
    }

    /// Starts any program with these arguments.
    pub(crate) fn run(name: &str, program: &Path, arguments: &[String]) -> anyhow::Result<Process> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let (sender, output) = watch::channel(Vec::new());
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(read_lines(stdout, sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(read_lines(stderr, sender));
        }
        Ok(Process { name: name.to_owned(), child, output, readers: Mutex::new(readers) })
    }

    /// Waits for the first line that `wanted` makes something of.
    pub(crate) async fn line<T>(&self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        self.line_within(PATIENCE, what, wanted).await
    }

    /// The same, for what may take longer.
    pub(crate) async fn line_within<T>(
        &self,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut output = self.output.clone();
        let search = async {
            let mut read = 0;
            loop {
                {
                    let lines = output.borrow_and_update();
                    if let Some(found) = lines[read..].iter().find_map(|line| wanted(line)) {
                        return Some(found);
                    }
                    read = lines.len();
                }
                // The senders are gone when the process has closed its output.
                output.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(patience, search).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("{} ended before {what}; its last lines:\n{}", self.name, self.last_lines()),
            Err(_) => bail!("{} never came to {what}; its last lines:\n{}", self.name, self.last_lines()),
        }
    }

    /// Waits for the line `listening` and gives the address in it, `host:port`.
    pub(crate) async fn listening(&self) -> anyhow::Result<String> {
        let fields = self.line("listening", |line| log_line(line, "listening")).await?;
        let address = fields.get("address").and_then(Value::as_str).context("listening on no address")?;
        Ok(address.trim_start_matches("http://").to_owned())
    }

    /// The most bytes of memory that it ever had, by the kernel's count.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().context("VmHWM is no number")?;
        Ok(kilobytes * 1024)
    }

    /// How long its threads that still live have had a processor.
    pub(crate) fn on_cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// SIGKILL, and reaped.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.end()
    }

    /// SIGSTOP; when it returns, every thread of the process stands still.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED)?.context("nothing was waited for")?;
        ensure!(status.stopped(), "{} did not stop", self.name);
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// Ctrl-C, and the exit status that follows.
    pub(crate) async fn interrupt(&mut self) -> anyhow::Result<ExitStatus> {
        kill_process(self.pid()?, Signal::INT)?;
        self.ended().await.context("after Ctrl-C")
    }

    /// SIGTERM, as whoever deploys sends it, and the exit status that follows.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        kill_process(self.pid()?, Signal::TERM)?;
        self.ended().await.context("after SIGTERM")
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        // Its output is closed when it ends; only then is it worth asking.
        let mut output = self.output.clone();
        let closed = async { while output.changed().await.is_ok() {} };
        if tokio::time::timeout(PATIENCE, closed).await.is_err() {
            bail!("{} does not end; its last lines:\n{}", self.name, self.last_lines());
        }
        Ok(self.child.wait()?)
    }

    /// All that it has written so far, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.borrow().clone()
    }

    fn last_lines(&self) -> String {
        let lines = self.output.borrow();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")
    }

    fn end(&mut self) -> anyhow::Result<()> {
        // SIGKILL ends a stopped process too. One that has already ended is only reaped.
        let killed = self.child.kill();
        self.child.wait()?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for reader in readers.drain(..) {
            reader.join().map_err(|_| anyhow::anyhow!("a reader of {} panicked", self.name))?;
        }
        Ok(killed?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(trouble) = self.end() {
            eprintln!("{} was not ended: {trouble:#}", self.name);
        }
    }
}

/// The fields of a JSON log line with this message.
pub(crate) fn log_line(line: &str, message: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").cloned().unwrap_or(line);
    (fields.get("message").and_then(Value::as_str) == Some(message)).then_some(fields)
}

// A thread each: a pipe that nobody reads would stop the process that writes it.
fn read_lines(from: impl Read + Send + 'static, to: watch::Sender<Vec<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.send_modify(|lines| lines.push(line));
        }
    })
}
