//! The command as a script meets it: what stands on stdout, what on stderr, and the exit code.

#![allow(clippy::unwrap_used, reason = "a test that stops loudly is what is wanted here")]

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

fn consent(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consent"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = consent(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A server, killed if the test does not end it.
struct Server(Child);

impl Server {
    fn start(arguments: &[&str]) -> Server {
        Server(consent(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// The lines of a pipe up to the first that contains `mark`.
    fn lines_to(pipe: impl Read, mark: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in BufReader::new(pipe).lines() {
            let line = line.unwrap();
            let last = line.contains(mark);
            lines.push(line);
            if last {
                return lines;
            }
        }
        panic!("{mark:?} never came: {lines:?}");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap()).unwrap()
    }

    fn terminate(mut self) -> i32 {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has already ended cannot be killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_script_can_tell_the_answers_apart() {
    let mut dev = Server::start(&["dev", "--port", "0"]);
    let lines = Server::lines_to(dev.0.stdout.take().unwrap(), "Ctrl-C");
    let address = |name: &str| {
        let mut words = lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.find(|words| words.first() == Some(&name)).unwrap()[1].to_owned()
    };
    let (authority, sidecar) = (address("authority"), address("sidecar"));
    let ask = |more: &[&str]| run(&[&["check", "ada", "--endpoint", &sidecar], more].concat());
    let set = |more: &[&str]| {
        run(&[&["set", "consent", "ada", "le_chat", "--endpoint", &authority], more].concat())
    };

    let (code, said, complaints) = ask(&["--exit-code"]);
    assert_eq!((code, complaints.as_str()), (0, ""));
    assert!(said.starts_with("ALLOW  PLAN_DEFAULT_IN  revision "), "{said}");

    let (code, said, _) = set(&["out", "--wait"]);
    assert_eq!(code, 0);
    assert!(said.starts_with("EFFECTIVE  revision "), "{said}");
    let position = said.split_whitespace().last().unwrap().to_owned();

    let (code, said, _) = ask(&["--min-position", &position]);
    assert_eq!(code, 0, "a DENY is an answer like another");
    assert!(said.starts_with("DENY   ACCOUNT_OPTED_OUT  revision "), "{said}");
    let (code, said, _) = ask(&["--exit-code", "-o", "json"]);
    assert_eq!(code, 3);
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["decision"], "DECISION_DENY");
    assert_eq!(answer["reason"], "REASON_ACCOUNT_OPTED_OUT");

    let (code, said, complaint) = set(&["in"]);
    assert_eq!((code, said.as_str()), (2, ""), "a result that is none does not stand on stdout");
    assert!(complaint.contains("EXPECTED_REVISION_MISSING") && complaint.contains("next: "), "{complaint}");
    let (code, _, complaint) = set(&["in", "--expected-revision", "1"]);
    assert_eq!(code, 7);
    assert!(complaint.contains("REVISION_CONFLICT"), "{complaint}");
    let (code, _, complaint) = set(&["out", "--actor", ""]);
    assert_eq!(code, 2);
    assert!(complaint.contains("context.actor"), "{complaint}");

    assert_eq!(run(&["health", "--endpoint", &sidecar]).0, 0);
    assert_eq!(dev.terminate(), 0, "an orderly end is no failure");
}

#[test]
fn nobody_there_is_another_exit_code_than_a_wrong_command() {
    // Bound and not listened on for long: nobody answers there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{free}");
    for command in [&["check", "ada"][..], &["set", "plan", "ada", "le_chat", "free"], &["health"]] {
        let (code, said, complaint) = run(&[command, &["--endpoint", &endpoint]].concat());
        assert_eq!((code, said.as_str()), (4, ""), "{command:?}");
        assert!(complaint.contains("UNREACHABLE") && complaint.contains(&endpoint), "{complaint}");
    }
    let (code, _, complaint) = run(&["health", "--endpoint", &endpoint, "-o", "json"]);
    assert_eq!(code, 4);
    let complaint: serde_json::Value = serde_json::from_str(&complaint).unwrap();
    assert_eq!(complaint["error"]["reason"], "UNREACHABLE");
    let (code, _, complaint) = run(&["check", "ada", "--endpoint", "127.0.0.1:1"]);
    assert_eq!(code, 2);
    assert!(complaint.contains("http://HOST:PORT"), "{complaint}");
    assert_eq!(run(&["chek"]).0, 2);
}

#[test]
fn an_authority_needs_a_migrated_store_and_safe_terms() {
    let home = TempDir::new().unwrap();
    let store = format!("sqlite:{}", home.path().display());
    let start = ["authority", "--listen", "127.0.0.1:0", "--store", &store];

    let (code, _, complaint) = run(&start);
    assert_eq!(code, 1);
    assert!(complaint.contains("CANNOT_START"), "{complaint}");

    assert_eq!(run(&["migrate", "--store", &store]).0, 0);
    let (code, said, _) = run(&["migrate", "--store", &store]);
    assert_eq!(code, 0);
    assert!(said.contains("as before"), "{said}");

    let (code, _, complaint) = run(&[&start[..], &["--replica-lease", "1s"]].concat());
    assert_eq!(code, 2);
    assert!(complaint.contains("replica_lease"), "{complaint}");

    let mut authority = Server::start(&start);
    Server::lines_to(authority.0.stderr.take().unwrap(), "listening");
    assert_eq!(authority.terminate(), 0);
}

/// A sidecar whose authority never answers.
const SIDECAR: [&str; 5] = ["sidecar", "--authority", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"];

#[test]
fn a_server_that_is_told_to_end_says_why_it_denies() {
    let mut dev = Server::start(&["dev", "--port", "0", "--log-level", "info"]);
    Server::lines_to(dev.0.stdout.take().unwrap(), "Ctrl-C");
    let mut log = dev.0.stderr.take().unwrap();
    assert_eq!(dev.terminate(), 0);
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    let (_, after) = said.split_once("stopping").expect("it says that it stops");
    let changed = after.lines().find(|line| line.contains("the state changed")).expect("it was LIVE");
    assert!(changed.contains("it is stopping"), "{changed}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut sidecar = Server::start(&SIDECAR);
    Server::lines_to(sidecar.0.stderr.take().unwrap(), "listening");
    // Stopped meanwhile, so that both are there when it goes on.
    kill_process(sidecar.pid(), Signal::STOP).unwrap();
    waitpid(Some(sidecar.pid()), WaitOptions::UNTRACED).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::CONT] {
        kill_process(sidecar.pid(), signal).unwrap();
    }
    assert_eq!(sidecar.0.wait().unwrap().code(), Some(130));
}

#[test]
fn a_server_makes_room_for_its_connections() {
    let limited = |limits: &str| {
        let script = format!("ulimit {limits} && exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_consent")]).args(SIDECAR);
        let mut sidecar = Server(shell.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
        let log = Server::lines_to(sidecar.0.stderr.take().unwrap(), "listening").join("\n");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", sidecar.0.id())).unwrap();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let soft: u64 = files.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(sidecar.terminate(), 0);
        (soft, log)
    };
    let (soft, log) = limited("-Sn 64");
    assert!(soft >= 1024 && !log.contains("raise the hard limit"), "{soft}: {log}");
    let (soft, log) = limited("-Sn 64 && ulimit -Hn 512");
    assert!(soft == 512 && log.contains("raise the hard limit"), "{soft}: {log}");
}

#[test]
fn a_password_in_the_address_of_a_redis_is_never_repeated() {
    let start = ["sidecar", "--listen", "127.0.0.1:0", "--authority", "http://127.0.0.1:1"];
    for url in [
        "redis://ada:hunter2@10.0.0.1:6379",
        "redis://hunter2/x@127.0.0.1:6379",
        "http://ada:hunter2@127.0.0.1",
        "unix://?pass=hunter2",
    ] {
        let Output { status, stderr, .. } =
            consent(&start).env("CONSENT_REDIS", url).output().expect("it starts");
        let by_variable = (status.code().unwrap(), String::new(), String::from_utf8(stderr).unwrap());
        for (code, said, complaint) in [run(&[&start[..], &["--redis", url]].concat()), by_variable] {
            assert_eq!((code, said.as_str()), (2, ""), "{complaint}");
            assert!(complaint.contains("--redis") && !complaint.contains("hunter2"), "{complaint}");
        }
    }
    let good = ["--redis", "redis://ada:hunter2@127.0.0.1:1", "--log-level", "trace"];
    let mut sidecar = Server::start(&[&start[..], &good].concat());
    let lines = Server::lines_to(sidecar.0.stderr.take().unwrap(), "the durable copy is not used");
    assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("127.0.0.1:1")), "{lines:?}");
}
