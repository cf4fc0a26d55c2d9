//! One of the writers: it knows what its accounts must be, and sends each write until it is answered.

use super::PRODUCT;
use crate::clients::{self, Authority, ID_MARK, write_context};
use crate::process::PATIENCE;
use crate::random::Random;
use anyhow::Context;
use consent::pb::{Channel as Via, Choice, PutAccountRequest, Receipt, SetConsentRequest, SetPlanRequest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Code, Status};

/// Accounts of each writer: only it writes to them.
const ACCOUNTS: u64 = 4;

/// A write as it was sent.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Choice(SetConsentRequest),
    Plan(SetPlanRequest),
    Account(PutAccountRequest),
}

impl Write {
    pub(super) async fn send(&self, authority: &mut Authority) -> Result<Receipt, Status> {
        let deadline = Duration::from_secs(10);
        let consent = &mut authority.consent;
        clients::receipt(match self {
            Write::Choice(write) => {
                consent.set_consent(clients::within(deadline, write.clone())).await?.into_inner().receipt
            }
            Write::Plan(write) => {
                consent.set_plan(clients::within(deadline, write.clone())).await?.into_inner().receipt
            }
            Write::Account(write) => {
                consent.put_account(clients::within(deadline, write.clone())).await?.into_inner().receipt
            }
        })
    }

    pub(super) fn request_id(&self) -> &str {
        let context = match self {
            Write::Choice(write) => &write.context,
            Write::Plan(write) => &write.context,
            Write::Account(write) => &write.context,
        };
        context.as_ref().map_or("", |context| &context.request_id)
    }
}

/// A write with the answer that it got.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) write: Write,
    pub(super) receipt: Receipt,
}

/// What the writers share with the one who kills.
#[derive(Debug)]
pub(super) struct Shared {
    // None while there is no authority, or when the trial is over.
    pub(super) authority: watch::Sender<Option<Authority>>,
    pub(super) recorded: Mutex<Vec<Recorded>>,
    pub(super) over: watch::Sender<bool>,
}

/// What an account must be, by the answers to its only writer.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) revision: u64,
    pub(super) choice: Choice,
    pub(super) plan: String,
}

impl Default for State {
    fn default() -> State {
        State { revision: 0, choice: Choice::Unset, plan: String::new() }
    }
}

pub(super) struct Writer {
    number: u64,
    random: Random,
    shared: Arc<Shared>,
    accounts: BTreeMap<String, State>,
}

impl Writer {
    pub(super) fn new(number: u64, random: Random, shared: Arc<Shared>) -> Writer {
        Writer { number, random, shared, accounts: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) -> anyhow::Result<BTreeMap<String, State>> {
        let mut authorities = self.shared.authority.subscribe();
        let over = self.shared.over.subscribe();
        while !*over.borrow() {
            let account = format!("{ID_MARK}writer{}-{}", self.number, self.random.below(ACCOUNTS));
            let mut state = self.accounts.get(&account).cloned().unwrap_or_default();
            let write = self.write(&account, &mut state);
            let receipt = answer(&write, &mut authorities).await?;
            state.revision = clients::revision(&receipt);
            self.accounts.insert(account, state);
            let mut recorded = self.shared.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            recorded.push(Recorded { write, receipt });
        }
        Ok(self.accounts)
    }

    // Some of them change nothing: those are remembered too.
    fn write(&mut self, account: &str, state: &mut State) -> Write {
        let party = Some(clients::account(account));
        let context = Some(write_context(Via::Api));
        match self.random.below(8) {
            0 => Write::Account(PutAccountRequest {
                context,
                account: account.to_owned(),
                organization: format!("{ID_MARK}company{}", self.random.below(8)),
                expected_revision: None,
            }),
            1 | 2 => {
                state.plan = ["free", "pro", "teams", ""][self.random.index(4)].to_owned();
                let plan = state.plan.clone();
                let product = PRODUCT.to_owned();
                Write::Plan(SetPlanRequest { context, party, product, plan, expected_revision: None })
            }
            3 | 4 => {
                state.choice = Choice::In;
                Write::Choice(SetConsentRequest {
                    expected_revision: (state.revision > 0).then_some(state.revision),
                    ..clients::choice(clients::account(account), PRODUCT, Choice::In, Via::Ios)
                })
            }
            _ => {
                state.choice = Choice::Out;
                Write::Choice(clients::choice(clients::account(account), PRODUCT, Choice::Out, Via::Android))
            }
        }
    }
}

// Sends until there is an answer: under the same request_id, whatever happened to the call before.
async fn answer(
    write: &Write,
    authorities: &mut watch::Receiver<Option<Authority>>,
) -> anyhow::Result<Receipt> {
    let asking = async {
        loop {
            let authority = authorities.wait_for(Option::is_some).await?.clone();
            let Some(mut authority) = authority else { continue };
            match write.send(&mut authority).await {
                Ok(receipt) => return Ok(receipt),
                Err(status) if asks_to_be_sent_again(&status) => {
                    // A dead authority refuses at once; the next one is announced.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(status) => {
                    return Err(anyhow::Error::new(status).context(format!("{write:?} is refused")));
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("{write:?} is never answered"))?
}

fn asks_to_be_sent_again(status: &Status) -> bool {
    // A status of the authority has an ErrorInfo; one without comes from a connection that died.
    status.details().is_empty()
        || matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
}
