//! What a run is asked for.

use anyhow::{Context, bail, ensure};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "usage: figures [NAME] [--check] [--accounts N,..] [--slices N] [--millis N] [--tiny]

  NAME             only the figures whose names begin so: unary, or unary/unix/64/10^6; --list names the groups
  --check          fail where a figure is short
  --accounts N,..  the sizes of the table, instead of 1000,1000000,10000000
  --slices N       so many slices of baseline and product in turn, instead of 9
  --millis N       how long one slice is, instead of 500
  --tiny           the smallest run that prints every line: it shows that each can be measured, and judges none";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Be the server that decides nothing.
    NoOp {
        /// Where to listen beside TCP.
        socket: PathBuf,
    },
    /// Be the server that sends the same bytes to everybody.
    Broadcast,
    /// Be the server that gives back what it hears.
    Echo,
    /// Say which groups there are.
    List,
    /// Measure.
    Figures(Arguments),
}

/// How to measure what.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// The beginning of the names of the wanted figures.
    pub(crate) name: String,
    /// Whether a short figure fails the run.
    pub(crate) is_checked: bool,
    /// Whether nothing is judged.
    pub(crate) is_tiny: bool,
    /// Sizes of the table, in accounts.
    pub(crate) accounts: Vec<u64>,
    /// Slices of each, beside the one that warms up.
    pub(crate) slices: usize,
    /// The length of one.
    pub(crate) slice: Duration,
}

/// Reads a command line.
pub(crate) fn parse(words: &[String]) -> anyhow::Result<Command> {
    if let [verb, socket] = words
        && verb == "no-op"
    {
        return Ok(Command::NoOp { socket: socket.into() });
    }
    if words == ["broadcast"] {
        return Ok(Command::Broadcast);
    }
    if words == ["echo"] {
        return Ok(Command::Echo);
    }
    let mut arguments = Arguments {
        name: String::new(),
        is_checked: false,
        is_tiny: words.iter().any(|word| word == "--tiny"),
        accounts: vec![1_000, 1_000_000, 10_000_000],
        slices: 9,
        slice: Duration::from_millis(500),
    };
    if arguments.is_tiny {
        arguments.accounts = vec![1_000];
        arguments.slices = 1;
        arguments.slice = Duration::from_millis(20);
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().with_context(|| format!("{word} needs a number"))?;
            value.parse::<u64>().with_context(|| format!("{word} {value} is no number"))
        };
        match word.as_str() {
            "--list" => return Ok(Command::List),
            "--check" => arguments.is_checked = true,
            "--tiny" => (),
            // What cargo tells every bench.
            "--bench" => (),
            "--slices" => arguments.slices = usize::try_from(number()?)?.max(1),
            "--millis" => arguments.slice = Duration::from_millis(number()?.max(1)),
            "--accounts" => {
                let list = words.next().context("--accounts needs sizes")?;
                let sizes =
                    list.split(',').map(|size| size.parse().with_context(|| format!("{size} is no size")));
                arguments.accounts = sizes.collect::<anyhow::Result<_>>()?;
                ensure!(arguments.accounts.iter().all(|size| *size >= 10), "a table needs 10 accounts");
            }
            option if option.starts_with('-') => bail!("there is no option {option}"),
            name if arguments.name.is_empty() => arguments.name = name.to_owned(),
            more => bail!("one name at a time; {more} is another"),
        }
    }
    Ok(Command::Figures(arguments))
}
