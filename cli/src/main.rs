//! `consent`: the one command. It starts the servers, and it asks them.
//!
//! A result goes to stdout, everything else to stderr, and the exit code says how it ended (`failure::Exit`).

mod authority;
mod check;
mod connect;
mod dev;
mod failure;
mod health;
mod migrate;
mod output;
mod set;
mod sidecar;
mod signals;
mod values;

use crate::failure::{Exit, Failure};
use crate::output::Format;
use clap::{Parser, Subcommand};
use std::io;
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// May this piece of user data be used to train models?
#[derive(Debug, Parser)]
#[command(name = "consent", version = consent::VERSION, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Authority(authority::Args),
    Sidecar(sidecar::Args),
    Migrate(migrate::Args),
    Check(check::Args),
    Set(set::Args),
    Health(health::Args),
}

impl Command {
    // Also a failure is printed for whom the result was meant.
    fn format(&self) -> Format {
        match self {
            Command::Check(args) => args.call.output,
            Command::Set(args) => args.call.output,
            Command::Health(args) => args.call.output,
            Command::Dev(_) | Command::Authority(_) | Command::Sidecar(_) | Command::Migrate(_) => {
                Format::Text
            }
        }
    }

    fn runtime(&self) -> io::Result<Runtime> {
        match self {
            // Its threads have runtimes of their own. What is left takes connections, and waits for a signal.
            Command::Sidecar(_) => Builder::new_current_thread().enable_all().build(),
            Command::Dev(_)
            | Command::Authority(_)
            | Command::Migrate(_)
            | Command::Check(_)
            | Command::Set(_)
            | Command::Health(_) => Runtime::new(),
        }
    }

    async fn run(self) -> Result<Exit, Failure> {
        match self {
            Command::Dev(args) => dev::run(args).await,
            Command::Authority(args) => authority::run(args).await,
            Command::Sidecar(args) => sidecar::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Set(args) => set::run(args).await,
            Command::Health(args) => health::run(args).await,
        }
    }
}

fn main() -> ExitCode {
    // A wrong command line ends here, with clap's own message and exit code 2.
    let command = Cli::parse().command;
    let format = command.format();
    let result = match command.runtime() {
        Ok(runtime) => runtime.block_on(command.run()),
        Err(e) => Err(Failure::internal(format!("the runtime cannot start: {e}"))),
    };
    let exit = result.unwrap_or_else(|failure| {
        output::note(&failure.render(format));
        failure.exit
    });
    exit.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn right_command_lines_are_taken() {
        for line in [
            "dev",
            "dev --data-dir /tmp/consent --port 0",
            "authority --store sqlite:/tmp/consent --sidecar-lease 300ms --replica-lease 600ms --answer-hold 5ms",
            "authority --store postgres://consent@127.0.0.1/consent --listen 127.0.0.1:0 --replica b --poll 5ms",
            "sidecar --authority http://127.0.0.1:7401,http://127.0.0.1:7411 --socket /tmp/consent.sock",
            "sidecar --authority http://127.0.0.1:7401 --socket run/consent.sock --socket-uids 0,1000 --cores 4",
            "authority --store sqlite:/tmp/consent --metrics 127.0.0.1:7403",
            "sidecar --authority http://127.0.0.1:7401 --metrics [::1]:0",
            "migrate --store sqlite:/tmp/consent",
            "check ada",
            "check ada --artifact a --product ai_studio --kind output --collected-at now --incognito --exit-code -o json",
            "check ada --collected-at 2026-11-25T07:30:00Z --endpoint unix:///run/consent.sock",
            "check ada --min-position 000102030405060708090a0b0c0d0e0f:17",
            "set consent ada le_chat out --wait --channel ios",
            "set consent acme le_chat in --organization --expected-revision 7",
            "set plan ada le_chat free -o json --timeout 1s",
            "set plan acme le_chat --none --organization",
            "set organization tom acme --request-id 9c0f31a8-0f0f-4d0f-8f0f-0f0f0f0f0f0f",
            "set organization tom --none",
            "set policy policies/mistral.toml",
            "health --service consent.v1.ConsentService --endpoint http://127.0.0.1:7401",
        ] {
            let args = std::iter::once("consent").chain(line.split(' '));
            assert!(Cli::try_parse_from(args).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_command_lines_are_usage_errors() {
        for line in [
            "",
            "dev --port 65535",
            "dev --port many",
            "authority",
            "authority --store mysql://x",
            "authority --store sqlite:/tmp/consent --listen 0.0.0.0:7401",
            "authority --store sqlite:/tmp/consent --sidecar-lease 3",
            "authority --store sqlite:/tmp/consent --drift-ppm fast",
            "authority --store sqlite:/tmp/consent --lease 3s",
            "authority --store sqlite:/tmp/consent --metrics 0.0.0.0:7403",
            "sidecar --authority http://127.0.0.1:7401 --metrics 10.0.0.1:7403",
            "sidecar",
            "sidecar --authority 127.0.0.1:7401",
            "sidecar --authority http://127.0.0.1:7401 --socket-uids 1000",
            "sidecar --authority http://127.0.0.1:7401 --socket run/consent.sock --socket-uids root",
            "sidecar --authority http://127.0.0.1:7401 --cores 0",
            "sidecar --authority http://127.0.0.1:7401 --cores 100",
            "migrate",
            "chek ada",
            "check",
            "check ada --collected-at yesterday",
            "check ada --min-position 17",
            "check ada -o yaml",
            "check ada --timeout 10",
            "set consent ada le_chat maybe",
            "set consent ada le_chat",
            "set plan ada le_chat",
            "set plan ada le_chat free --none",
            "set organization tom",
            "set organization tom acme --none",
            "set consent ada le_chat out --request-id 7",
            "set consent ada le_chat in --expected-revision -1",
        ] {
            let args = std::iter::once("consent").chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
