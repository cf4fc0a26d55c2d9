//! A private Postgres for tests: its own cluster in a temporary directory, on a Unix socket there, gone at the end.
//!
//! It is a real server with fsync on, since what is tested is what it promises after a crash. A test that needs it
//! fails where there is none: a skipped test proves nothing. Shared by `#[path]`.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

const USER: &str = "consent";

/// Small, but as durable as in production.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "shared_buffers=32MB",
    "max_connections=100",
    "max_wal_size=256MB",
    "wal_level=replica",
    "timezone=UTC",
];

// Right after a crash the kernel may still be taking apart what the dead server had mapped.
const STARTS: u32 = 20;

/// Who may run a server: initdb refuses root.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

/// A running server, which ends with this value.
pub(crate) struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    owner: Option<Owner>,
    server: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a cluster and starts its server; returns when it accepts connections.
    pub(crate) fn start() -> Result<Postgres, String> {
        let programs = programs()?;
        let owner = owner()?;
        let directory =
            TempDir::with_prefix("consent-pg-").map_err(|e| format!("no temporary directory: {e}"))?;
        if let Some(owner) = owner {
            chown(directory.path(), Some(owner.uid), Some(owner.gid))
                .map_err(|e| format!("cannot chown: {e}"))?;
        }
        let mut postgres =
            Postgres { directory, programs, owner, server: None, databases: AtomicU32::new(0) };
        let mut initdb = postgres.program("initdb");
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--username",
            USER,
            "--pgdata",
        ]);
        run(initdb.arg(postgres.data()))?;
        postgres.restart()?;
        Ok(postgres)
    }

    /// An address for a database of its own, empty.
    pub(crate) fn fresh_database(&self) -> Result<String, String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = self.program("createdb");
        run(createdb.args(["--username", USER, "--host"]).arg(self.directory.path()).arg(&name))?;
        Ok(format!("postgres://{USER}@localhost/{name}?host={}", self.directory.path().display()))
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// A power cut, as far as processes go: every process of the server is killed where it stands.
    pub(crate) fn kill_hard(&mut self) -> Result<(), String> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let pid = pid_of(server.id())?;
        // Stopped first, so that it starts no more children while they are counted.
        kill_process(pid, Signal::STOP).map_err(|e| format!("cannot stop postgres: {e}"))?;
        for child in children(server.id()) {
            // One that has just ended by itself is as dead.
            let _ = kill_process(pid_of(child)?, Signal::KILL);
        }
        server.kill().map_err(|e| format!("cannot kill postgres: {e}"))?;
        server.wait().map_err(|e| format!("cannot wait for postgres: {e}"))?;
        Ok(())
    }

    /// Starts the server on its old data, killing it before if it runs.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.restart_with(&[])
    }

    /// The same, as a standby, which never becomes a primary.
    pub(crate) fn restart_as_standby(&mut self) -> Result<(), String> {
        self.kill_hard()?;
        File::create(self.data().join("standby.signal")).map_err(|e| format!("cannot sign it: {e}"))?;
        self.restart()
    }

    /// The same, with further settings.
    pub(crate) fn restart_with(&mut self, settings: &[&str]) -> Result<(), String> {
        self.kill_hard()?;
        let mut said = String::new();
        for _ in 0..STARTS {
            match self.spawn(settings)? {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                Err(last_words) => said = last_words,
            }
        }
        Err(format!("postgres does not start:\n{said}"))
    }

    /// The running server, or its last words.
    fn spawn(&self, settings: &[&str]) -> Result<Result<Child, String>, String> {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        SETTINGS.iter().chain(settings).for_each(|setting| {
            command.args(["-c", setting]);
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut server = command.spawn().map_err(|e| format!("cannot run postgres: {e}"))?;
        let Some(stderr) = server.stderr.take() else { return Err("postgres has no stderr".into()) };
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        for line in lines.by_ref() {
            let line = line.map_err(|e| format!("cannot read what postgres says: {e}"))?;
            said.push_str(&line);
            said.push('\n');
            if line.contains("database system is ready to accept") {
                let log = self.directory.path().join("log");
                let mut log =
                    File::options().create(true).append(true).open(log).map_err(|e| e.to_string())?;
                // What it says from now on is there for whoever debugs, and its pipe never fills up.
                std::thread::spawn(move || {
                    lines.map_while(Result::ok).try_for_each(|line| writeln!(log, "{line}"))
                });
                return Ok(Ok(server));
            }
        }
        server.wait().map_err(|e| format!("cannot wait for postgres: {e}"))?;
        Ok(Err(said))
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A program of the server's, not as root.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.directory.path()).env_clear().env("LC_ALL", "C");
        if let Some(Owner { uid, gid }) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.kill_hard() {
            eprintln!("{error}");
        }
    }
}

/// The first installation in the PATH, or the newest where Debian puts them.
fn programs() -> Result<PathBuf, String> {
    let version = |place: &PathBuf| -> Option<u32> { place.parent()?.file_name()?.to_str()?.parse().ok() };
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    installed.sort_by_key(|place| std::cmp::Reverse(version(place)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(installed);
    let whole =
        |place: &PathBuf| ["initdb", "postgres", "createdb"].iter().all(|name| place.join(name).exists());
    places.find(whole).ok_or_else(|| {
        "no Postgres is installed: initdb, postgres and createdb are neither in the PATH nor in \
         /usr/lib/postgresql/*/bin (Debian: apt-get install postgresql)"
            .into()
    })
}

/// For root, somebody else to be; nobody else needs it.
fn owner() -> Result<Option<Owner>, String> {
    let me = fs::metadata("/proc/self").map_err(|e| format!("cannot tell who I am: {e}"))?;
    if me.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(|e| format!("cannot read /etc/passwd: {e}"))?;
    let user = |wanted: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (name == wanted).then_some(Owner { uid, gid })
        })
    };
    user("postgres").or_else(|| user("nobody")).map(Some).ok_or_else(|| {
        "Postgres does not run as root, and there is neither a user postgres nor nobody".into()
    })
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name before it may hold anything but ends with the last parenthesis.
            let (_, rest) = stat.rsplit_once(')')?;
            let its_parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
            (its_parent == parent).then_some(pid)
        })
        .collect()
}

fn pid_of(number: u32) -> Result<Pid, String> {
    i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(|| format!("{number} is no process"))
}
