//! A client that has no files of ours: `buf curl`, which learns the contract by reflection.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Calls a method of the server at `url`, and gives the answer as JSON.
pub(crate) fn call(url: &str, method: &str, request: &Value) -> anyhow::Result<Value> {
    let answer = run(&["-d", &request.to_string(), &format!("{url}/consent.v1.{method}")])?;
    serde_json::from_str(&answer).with_context(|| format!("{method} answers with {answer}"))
}

/// The services that the server lists.
pub(crate) fn services(url: &str) -> anyhow::Result<Vec<String>> {
    Ok(run(&["--list-services", url])?.lines().map(str::to_owned).collect())
}

fn run(arguments: &[&str]) -> anyhow::Result<String> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/node_modules/.bin/buf");
    let buf = if installed.exists() { installed } else { "buf".into() };
    let output = Command::new(buf)
        .args(["curl", "--protocol", "grpc", "--http2-prior-knowledge"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("buf does not run: `./dev demo` installs it")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}
