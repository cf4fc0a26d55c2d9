//! A private Redis for tests: its own server in a temporary directory, on a Unix socket there, gone at the end.
//!
//! It keeps nothing by default: killed, it comes back empty. What it is to come back with is written by hand
//! ([`Redis::save`], [`Redis::put_dump`]). A test that needs it fails where there is none: a skipped test proves
//! nothing. Shared by `#[path]`.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A server, which ends with this value.
pub(crate) struct Redis {
    directory: TempDir,
    server: Option<Child>,
    databases: usize,
}

impl Redis {
    /// Starts an empty one; returns when it takes commands.
    pub(crate) fn start() -> Result<Redis, String> {
        Redis::start_with_databases(16)
    }

    /// The same, of so many databases.
    pub(crate) fn start_with_databases(databases: usize) -> Result<Redis, String> {
        let directory = TempDir::with_prefix("consent-redis-").map_err(|e| e.to_string())?;
        let mut redis = Redis { directory, server: None, databases };
        redis.restart()?;
        Ok(redis)
    }

    /// What `--redis` takes.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its process; none while it does not run.
    pub(crate) fn id(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// A connection of the test's own.
    pub(crate) fn connect(&self) -> Result<redis::Connection, String> {
        let client = redis::Client::open(self.url()).map_err(|e| e.to_string())?;
        client.get_connection().map_err(|e| format!("the test's Redis cannot be reached: {e}"))
    }

    /// Runs one command, given as words.
    pub(crate) fn run(&self, words: &str) -> Result<redis::Value, String> {
        let mut command = redis::Cmd::new();
        words.split(' ').for_each(|word| {
            command.arg(if word == "''" { "" } else { word });
        });
        command.query(&mut self.connect()?).map_err(|e| format!("{words}: {e}"))
    }

    /// SIGKILL, and reaped.
    pub(crate) fn kill_hard(&mut self) -> Result<(), String> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.kill().map_err(|e| format!("cannot kill redis: {e}"))?;
        server.wait().map_err(|e| format!("cannot wait for redis: {e}"))?;
        // Its socket stays behind if it had made it, and nobody must think that there is a server.
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("cannot remove the socket: {error}"))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Starts it again, after killing it if it runs, with the dump that lies there.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.start_until(&[], "ready to accept connections")
    }

    /// Starts it again and returns while it loads its dump, which it does at so many microseconds per key.
    pub(crate) fn restart_slowly(&mut self, microseconds: u32) -> Result<(), String> {
        let delay = microseconds.to_string();
        let slow = ["--key-load-delay", &delay, "--loading-process-events-interval-bytes", "1024"];
        self.start_until(&slow, "Loading RDB produced by")
    }

    /// SIGSTOP: it takes connections and says nothing.
    pub(crate) fn pause(&self) -> Result<(), String> {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP).map_err(|e| format!("cannot stop redis: {e}"))?;
        waitpid(Some(pid), WaitOptions::UNTRACED).map_err(|e| format!("redis does not stop: {e}"))?;
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) -> Result<(), String> {
        kill_process(self.pid()?, Signal::CONT).map_err(|e| format!("cannot continue redis: {e}"))
    }

    /// What it holds now, as a dump.
    pub(crate) fn save(&self) -> Result<Vec<u8>, String> {
        self.run("SAVE")?;
        let dump = fs::read(self.dump()).map_err(|e| format!("there is no dump: {e}"))?;
        fs::remove_file(self.dump()).map_err(|e| e.to_string())?;
        Ok(dump)
    }

    /// The next start loads this dump.
    pub(crate) fn put_dump(&self, dump: &[u8]) -> Result<(), String> {
        fs::write(self.dump(), dump).map_err(|e| format!("cannot write the dump: {e}"))
    }

    /// Where it would write a dump.
    pub(crate) fn dump(&self) -> PathBuf {
        self.directory.path().join("dump.rdb")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    fn start_until(&mut self, more: &[&str], said: &str) -> Result<(), String> {
        self.kill_hard()?;
        let mut command = Command::new("redis-server");
        command.current_dir(self.directory.path()).args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(self.socket()).args(["--dir", "."]).args(more);
        command.args(["--databases", &self.databases.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut server = command
            .spawn()
            .map_err(|e| format!("redis-server cannot be run: {e} (Debian: apt-get install redis-server)"))?;
        let stdout = server.stdout.take().ok_or("redis has no stdout")?;
        self.server = Some(server);
        let mut lines = BufReader::new(stdout).lines();
        let mut heard = String::new();
        while let Some(Ok(line)) = lines.next() {
            if line.contains(said) {
                // What it says from now on is read, so that its pipe never fills up.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(());
            }
            heard.push_str(&line);
            heard.push('\n');
        }
        Err(format!("redis does not start:\n{heard}"))
    }

    fn pid(&self) -> Result<Pid, String> {
        let id = self.server.as_ref().map(Child::id).ok_or("redis does not run")?;
        i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| format!("{id} is no process"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // SIGKILL ends a stopped server, too.
        if let Err(error) = self.kill_hard() {
            eprintln!("{error}");
        }
    }
}
