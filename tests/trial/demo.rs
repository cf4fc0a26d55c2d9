//! The README's first minute, played and checked: what it prints is pasted, and asked again by a client that knows
//! the contract by reflection only.

use crate::clients;
use crate::process::Process;
use crate::reflection::{call, services};
use crate::tally::Tally;
use anyhow::{Context, ensure};
use consent::clock;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use uuid::Uuid;

/// The minute, and a second start on the same data.
pub(crate) async fn run(tally: &mut Tally) -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let dev = Dev::start(home.path()).await?;
    let older = reflection(tally, &dev)?;
    out(tally, &dev)?;
    let newer = back_in(tally, &dev, older).await?;
    dev.end(tally, "the first start").await?;

    let dev = Dev::start(home.path()).await?;
    goes_on(tally, &dev, older, newer)?;
    dev.end(tally, "the second start").await
}

/// A running `consent dev`, and what it has printed.
struct Dev {
    process: Process,
    authority: String,
    sidecar: String,
    /// The commands that can be pasted.
    commands: Vec<String>,
}

impl Dev {
    async fn start(data: &Path) -> anyhow::Result<Dev> {
        let data = data.display().to_string();
        let arguments = ["dev", "--port", "0", "--data-dir", &data].map(str::to_owned);
        let process = Process::start("consent dev", &arguments)?;
        process.line("its last line", |line| line.starts_with("Ctrl-C").then_some(())).await?;
        let lines = process.lines();
        let address = |name: &str| {
            let mut words = lines.iter().map(|line| line.split_whitespace());
            words
                .find_map(|mut words| (words.next() == Some(name)).then(|| words.next()).flatten())
                .map(str::to_owned)
                .with_context(|| format!("no address of the {name}"))
        };
        let pasted = |line: &&String| line.contains(" check ada") || line.contains(" set consent ada");
        let commands = lines.iter().filter(pasted).map(|line| line.trim().to_owned()).collect();
        Ok(Dev { authority: address("authority")?, sidecar: address("sidecar")?, process, commands })
    }

    fn paste(&self, part: &str) -> anyhow::Result<String> {
        let command = self.commands.iter().find(|command| command.contains(part));
        let command = command.with_context(|| format!("no command with `{part}` was printed"))?;
        let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{command}` ends with {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    fn ask(&self, collected_at: i64, seen: &Value) -> anyhow::Result<Value> {
        let artifact = json!({
            "id": "chat-1", "product": "le_chat", "kind": "input", "collectedAt": instant(collected_at)?
        });
        let question = json!({ "account": "ada", "artifact": artifact, "minPosition": seen });
        call(&self.sidecar, "DecisionService/CanTrain", &question)
    }

    async fn end(mut self, tally: &mut Tally, which: &str) -> anyhow::Result<()> {
        let status = self.process.interrupt().await?;
        tally.check(status.success(), format_args!("{which}: Ctrl-C ends it, {status}"));
        Ok(())
    }
}

/// The command, run to its end.
fn consent(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_consent")).args(arguments).stdin(Stdio::null()).output()?)
}

fn instant(millis: i64) -> anyhow::Result<String> {
    Ok(jiff::Timestamp::from_millisecond(millis)?.to_string())
}

fn write(request: &Value) -> Value {
    let context = json!({
        "requestId": Uuid::new_v4().to_string(),
        "actor": "ada",
        "channel": "CHANNEL_ADMIN_CONSOLE",
        "waitEffective": true,
    });
    let mut request = request.clone();
    request["context"] = context;
    request["party"] = json!({ "account": "ada" });
    request["product"] = json!("le_chat");
    request
}

fn says(answer: &Value, decision: &str, reason: &str) -> bool {
    answer["decision"] == format!("DECISION_{decision}") && answer["reason"] == format!("REASON_{reason}")
}

// Gives the instant of data that was trainable then.
fn reflection(tally: &mut Tally, dev: &Dev) -> anyhow::Result<i64> {
    let authority = ["ConsentService", "DecisionService", "PolicyService", "SyncService"];
    let sidecar = ["DecisionService", "SidecarService"];
    for (name, url, own) in
        [("authority", &dev.authority, &authority[..]), ("sidecar", &dev.sidecar, &sidecar[..])]
    {
        let listed = services(url)?;
        let mut listed: Vec<&str> =
            listed.iter().filter_map(|name| name.strip_prefix("consent.v1.")).collect();
        listed.sort_unstable();
        tally.check(listed == own, format_args!("reflection of the {name} lists {}", listed.join(", ")));
    }
    let now = clock::wall().millis();
    let answer = dev.ask(now, &Value::Null)?;
    tally.check(says(&answer, "ALLOW", "PLAN_DEFAULT_IN"), format_args!("asked about ada: {answer}"));
    let said = dev.paste("check ada")?;
    tally.check(
        said.contains("ALLOW") && said.contains("PLAN_DEFAULT_IN"),
        format_args!("pasted: {}", one_line(&said)),
    );
    Ok(now)
}

fn out(tally: &mut Tally, dev: &Dev) -> anyhow::Result<()> {
    let answer =
        call(&dev.authority, "ConsentService/SetConsent", &write(&json!({ "choice": "CHOICE_OUT" })))?;
    let receipt = &answer["receipt"];
    tally.check(
        receipt["confirmation"] == "CONFIRMATION_EFFECTIVE" && receipt["changed"] == true,
        format_args!("SetConsent OUT, waiting: {}, {}", receipt["confirmation"], receipt["position"]),
    );
    // EFFECTIVE: no node may say anything else by now, so nothing is waited for.
    let answer = dev.ask(clock::wall().millis(), &Value::Null)?;
    tally.check(says(&answer, "DENY", "ACCOUNT_OPTED_OUT"), format_args!("asked about ada: {answer}"));
    let said = dev.paste("set consent ada")?;
    tally.check(said.to_uppercase().contains("EFFECTIVE"), format_args!("pasted: {}", one_line(&said)));
    let said = dev.paste("check ada")?;
    tally.check(
        said.contains("DENY") && said.contains("ACCOUNT_OPTED_OUT"),
        format_args!("pasted: {}", one_line(&said)),
    );
    Ok(())
}

async fn back_in(tally: &mut Tally, dev: &Dev, older: i64) -> anyhow::Result<i64> {
    let blind = consent(&["set", "consent", "ada", "le_chat", "in", "--endpoint", &dev.authority])?;
    let said = String::from_utf8(blind.stderr)?;
    tally.check(
        blind.status.code() == Some(2)
            && said.contains("EXPECTED_REVISION_MISSING")
            && said.contains("next:"),
        format_args!("an opt-in that has not seen the opt-out is refused: {}", one_line(&said)),
    );
    let account = call(&dev.authority, "ConsentService/GetAccount", &json!({ "account": "ada" }))?;
    let seen = json!({ "choice": "CHOICE_IN", "expectedRevision": account["revision"] });
    let answer = call(&dev.authority, "ConsentService/SetConsent", &write(&seen))?;
    let receipt = &answer["receipt"];
    tally.check(
        receipt["changed"] == true,
        format_args!("SetConsent IN over revision {}", account["revision"]),
    );
    let answer = dev.ask(older, &receipt["position"])?;
    tally.check(
        says(&answer, "DENY", "COLLECTED_BEFORE_ALLOWED") && answer["final"] == true,
        format_args!("asked about older data: {answer}"),
    );
    let recorded: jiff::Timestamp = receipt["recordedAt"].as_str().context("no recordedAt")?.parse()?;
    // The guard is 0 s here: newer data counts from the next whole second on.
    let newer = (recorded.as_millisecond().div_euclid(1000) + 1) * 1000;
    clients::wall_clock_at(newer).await;
    let answer = dev.ask(newer, &receipt["position"])?;
    tally.check(says(&answer, "ALLOW", "ACCOUNT_OPTED_IN"), format_args!("asked about newer data: {answer}"));
    for (collected_at, code, expected) in
        [(instant(older)?, 3, "COLLECTED_BEFORE_ALLOWED"), ("now".to_owned(), 0, "ACCOUNT_OPTED_IN")]
    {
        let check =
            ["check", "ada", "--collected-at", &collected_at, "--exit-code", "--endpoint", &dev.sidecar];
        let output = consent(&check)?;
        let said = String::from_utf8(output.stdout)?;
        tally.check(
            output.status.code() == Some(code) && said.contains(expected),
            format_args!("consent check ada --collected-at {collected_at}: {}", one_line(&said)),
        );
    }
    Ok(newer)
}

fn goes_on(tally: &mut Tally, dev: &Dev, older: i64, newer: i64) -> anyhow::Result<()> {
    let answer = dev.ask(older, &Value::Null)?;
    let old = says(&answer, "DENY", "COLLECTED_BEFORE_ALLOWED");
    let answer = dev.ask(newer, &Value::Null)?;
    tally.check(
        old && says(&answer, "ALLOW", "ACCOUNT_OPTED_IN"),
        format_args!("the second start goes on where the first ended: {answer}"),
    );
    // A lease row that was left open would be waited for.
    let began = clock::now().boot;
    let answer =
        call(&dev.authority, "ConsentService/SetConsent", &write(&json!({ "choice": "CHOICE_OUT" })))?;
    let took = (clock::now().boot - began) / 1_000_000;
    tally.check(
        answer["receipt"]["confirmation"] == "CONFIRMATION_EFFECTIVE" && took < 6000,
        format_args!("the lease row was closed: an opt-out is EFFECTIVE in {took} ms, sooner than T_R"),
    );
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
