//! kill -9 at random moments: of the authority under 64 writers, and of the sidecar under questions.
//!
//! After every kill: each write that was answered is in the ledger as it was answered, revisions are dense, the
//! chain and the digest computed anew are those that the authority shows, and each request_id sent again gets the
//! answer it got (I6). After every restart of the sidecar: no ALLOW before it says LIVE, none at all for a person
//! who opted out while it was dead (I8, A7).

use crate::clients::{self, Authority, ID_MARK, Node, write_context};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::ledger::{Follower, Ledger};
use crate::random::Random;
use crate::tally::Tally;
use anyhow::{Context, ensure};
use consent::pb::{
    Channel as Via, Choice, Party, PutAccountRequest, Reason, Receipt, SetConsentRequest, SetPlanRequest,
    SidecarState,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Code, Status};

const WRITERS: u64 = 64;
/// Accounts of each writer: only it writes to them, so it knows what they must be.
const ACCOUNTS: u64 = 4;
const PRODUCT: &str = "le_chat";
/// The longest that an authority lives between two kills.
const LIFE_MS: u64 = 400;

/// Both kinds of kill, `kills` times each on each store.
pub(crate) async fn run(tally: &mut Tally, kills: u64) -> anyhow::Result<()> {
    ensure!(kills > 0, "no kill proves nothing");
    let mut random = Random::announced()?;
    for kind in StoreKind::ALL {
        authority_killed(tally, kind, kills, &mut random).await?;
    }
    for kind in StoreKind::ALL {
        sidecar_killed(tally, kind, kills, &mut random).await?;
    }
    Ok(())
}

/// A write as it was sent.
#[derive(Debug, Clone)]
enum Write {
    Choice(SetConsentRequest),
    Plan(SetPlanRequest),
    Account(PutAccountRequest),
}

impl Write {
    async fn send(&self, authority: &mut Authority) -> Result<Receipt, Status> {
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

    fn request_id(&self) -> &str {
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
struct Recorded {
    write: Write,
    receipt: Receipt,
}

/// What the writers share with the one who kills.
#[derive(Debug)]
struct Shared {
    // None while there is no authority, or when the trial is over.
    authority: watch::Sender<Option<Authority>>,
    recorded: Mutex<Vec<Recorded>>,
    over: watch::Sender<bool>,
}

async fn authority_killed(
    tally: &mut Tally,
    kind: StoreKind,
    kills: u64,
    random: &mut Random,
) -> anyhow::Result<()> {
    let mut cluster = Cluster::live(kind, Terms::SHORT).await?;
    let shared = Arc::new(Shared {
        authority: watch::Sender::new(Some(cluster.authority().await?)),
        recorded: Mutex::new(Vec::new()),
        over: watch::Sender::new(false),
    });
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let random = Random::new(random.next());
        writers.spawn(Writer::new(writer, random, Arc::clone(&shared)).run());
    }
    let mut ledger = Ledger::default();
    let mut follower = Follower::default();
    let (mut checked, mut asked_again) = (0, 0);
    for _ in 0..kills {
        // Chance, no synchronisation: the moment of the kill.
        tokio::time::sleep(Duration::from_millis(random.below(LIFE_MS))).await;
        shared.authority.send_replace(None);
        cluster.kill_authority()?;
        // Sometimes the next one is killed while it starts.
        if random.below(4) == 0 {
            let starting = cluster.spawn_authority()?;
            tokio::time::sleep(Duration::from_millis(random.below(100))).await;
            starting.kill()?;
        }
        cluster.start_authority().await?;
        let mut authority = cluster.authority().await?;
        let recorded = shared.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ledger.read_on(&mut authority).await?;
        check_recorded(&recorded[checked..], &ledger)?;
        checked = recorded.len();
        for _ in 0..WRITERS.min(checked as u64) {
            same_answer(&recorded[random.index(checked)], &mut authority).await?;
            asked_again += 1;
        }
        follower.follow(&ledger, cluster.authority_address()?).await?;
        shared.authority.send_replace(Some(authority));
    }
    shared.over.send_replace(true);
    let mut states = Vec::new();
    while let Some(writer) = writers.join_next().await {
        states.push(writer??);
    }
    let mut authority = cluster.authority().await?;
    let recorded = shared.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for recorded in &recorded {
        same_answer(recorded, &mut authority).await?;
        asked_again += 1;
    }
    ledger.read_on(&mut authority).await?;
    check_recorded(&recorded, &ledger)?;
    check_states(&states, &mut authority).await?;
    follower.follow(&ledger, cluster.authority_address()?).await?;
    let mut from_the_start = Follower::default();
    from_the_start.follow(&ledger, cluster.authority_address()?).await?;
    cluster.node().await?.until_applied(ledger.revision()).await?;
    let status = cluster.node().await?.until(SidecarState::Live).await?;
    let (writes, revisions) = (recorded.len(), ledger.revision());
    tally.check(
        writes as u64 >= kills,
        format_args!(
            "{kind:8} {kills} kills of the authority under {WRITERS} writers: {writes} RECORDED writes all there, \
             {revisions} revisions dense, chain and digest whole over {} heads, {asked_again} requests answered the \
             same again; a lost write has probability < {:.5} a kill (3/N, 95 %)",
            from_the_start.heads(),
            3.0 / kills as f64
        ),
    );
    tally.check(
        status.position.is_some_and(|position| position.revision >= revisions),
        format_args!("{kind:8} the sidecar followed through all of it and is LIVE at {revisions}"),
    );
    check_logs(tally, &cluster);
    Ok(())
}

// Each answered write stands in the ledger under its own request_id and chain.
fn check_recorded(recorded: &[Recorded], ledger: &Ledger) -> anyhow::Result<()> {
    for Recorded { write, receipt } in recorded {
        let revision = clients::revision(receipt);
        let event =
            ledger.event(revision).with_context(|| format!("r{revision} was RECORDED and is lost"))?;
        ensure!(event.chain == receipt.chain, "r{revision} has another chain than its receipt");
        ensure!(event.recorded_at == receipt.recorded_at, "r{revision} has another instant than its receipt");
        ensure!(
            !receipt.changed || event.request_id == write.request_id(),
            "r{revision} is another write than the one that it was returned for"
        );
    }
    Ok(())
}

async fn same_answer(recorded: &Recorded, authority: &mut Authority) -> anyhow::Result<()> {
    let Recorded { write, receipt } = recorded;
    let again = write.send(authority).await.context("a request_id that was answered is refused")?;
    // How far it has come may have changed meanwhile; what it is may not.
    let same = again.position == receipt.position
        && again.chain == receipt.chain
        && again.recorded_at == receipt.recorded_at
        && again.changed == receipt.changed;
    ensure!(same, "sent again: {again:?}\nat first: {receipt:?}");
    Ok(())
}

async fn check_states(states: &[BTreeMap<String, State>], authority: &mut Authority) -> anyhow::Result<()> {
    for (account, state) in states.iter().flatten() {
        let request = consent::pb::GetAccountRequest { account: account.clone() };
        let seen = authority.consent.get_account(clients::within(Duration::from_secs(10), request)).await?;
        let seen = seen.into_inner();
        ensure!(
            seen.revision == state.revision,
            "an account is at {}, not {}",
            seen.revision,
            state.revision
        );
        let product =
            seen.products.iter().find(|product| product.product == PRODUCT).context("no product")?;
        ensure!(product.choice() == state.choice, "an account's last choice was lost");
        ensure!(product.plan == state.plan, "an account's last plan was lost");
    }
    Ok(())
}

/// What an account must be, by the answers to its only writer.
#[derive(Debug, Clone)]
struct State {
    revision: u64,
    choice: Choice,
    plan: String,
}

impl Default for State {
    fn default() -> State {
        State { revision: 0, choice: Choice::Unset, plan: String::new() }
    }
}

struct Writer {
    number: u64,
    random: Random,
    shared: Arc<Shared>,
    accounts: BTreeMap<String, State>,
}

impl Writer {
    fn new(number: u64, random: Random, shared: Arc<Shared>) -> Writer {
        Writer { number, random, shared, accounts: BTreeMap::new() }
    }

    async fn run(mut self) -> anyhow::Result<BTreeMap<String, State>> {
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
        let party: Option<Party> = Some(clients::account(account));
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
    loop {
        let authority = authorities.wait_for(Option::is_some).await?.clone();
        let Some(mut authority) = authority else { continue };
        match write.send(&mut authority).await {
            Ok(receipt) => return Ok(receipt),
            Err(status) if went_wrong_on_the_way(&status) => {
                // A dead authority refuses at once; the next one is announced.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(status) => return Err(anyhow::Error::new(status).context(format!("{write:?} is refused"))),
        }
    }
}

fn went_wrong_on_the_way(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
    )
}

async fn sidecar_killed(
    tally: &mut Tally,
    kind: StoreKind,
    kills: u64,
    random: &mut Random,
) -> anyhow::Result<()> {
    let mut cluster = Cluster::live(kind, Terms::SHORT).await?;
    let guard_ms = clients::guard_ms()?;
    let mut authority = cluster.authority().await?;
    let bystander = format!("{ID_MARK}bystander");
    let people: Vec<String> = (0..kills).map(|n| format!("{ID_MARK}person{n}")).collect();
    let mut last = Receipt::default();
    for person in people.iter().chain([&bystander]) {
        last = authority.set_plan(clients::account(person), PRODUCT, "free").await?;
    }
    let since = clients::first_allowed(&last, guard_ms)?;
    clients::wall_clock_at(since - guard_ms).await;
    let mut seen = Seen::default();
    for person in &people {
        let mut node = cluster.node().await?;
        let artifact = clients::artifact(PRODUCT, "input", since);
        let before = node.answers.ask(person, artifact, last.position.clone()).await?;
        ensure!(before.allows(), "before the kill: {:?}", before.response);
        cluster.kill_sidecar()?;
        last = authority
            .choose(clients::choice(clients::account(person), PRODUCT, Choice::Out, Via::Ios))
            .await?;
        // Half of the times it finds no authority at first, and must not answer from what it never had.
        let alone = random.below(2) == 0;
        if alone {
            cluster.authority_process()?.stop()?;
        }
        seen.live = false;
        seen.allowed_bystander = false;
        let asked = cluster
            .start_sidecar_asking(async |socket| {
                let mut node = first_accept(&socket).await?;
                if alone {
                    for _ in 0..50 {
                        seen.ask(&mut node, person, &bystander, since).await?;
                    }
                    ensure!(!seen.live, "LIVE without an authority");
                }
                Ok(node)
            })
            .await;
        if alone {
            cluster.authority_process()?.go_on()?;
        }
        let mut node = asked?;
        while !seen.allowed_bystander {
            seen.ask(&mut node, person, &bystander, since).await?;
        }
    }
    for wrong in seen.wrong.iter().take(3) {
        println!("        {wrong}");
    }
    let reasons = seen.early.iter().map(|(reason, n)| format!("{n} {}", reason.as_str_name()));
    tally.check(
        seen.wrong.is_empty() && !seen.early.is_empty(),
        format_args!(
            "{kind:8} {kills} kills of the sidecar: {} answers before it was LIVE, none an ALLOW ({}); {} answers \
             about people who opted out while it was dead, none an ALLOW",
            seen.early.values().sum::<u64>(),
            reasons.collect::<Vec<_>>().join(", "),
            seen.opted_out,
        ),
    );
    check_logs(tally, &cluster);
    Ok(())
}

// The sidecar listens some time after its start: from then on it is asked.
pub(crate) async fn first_accept(socket: &str) -> anyhow::Result<Node> {
    let connecting = async {
        loop {
            if let Ok(node) = Node::connect(socket).await {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(crate::process::PATIENCE, connecting).await.context("the sidecar never listens")
}

/// What a sidecar answered from its first breath on, about somebody who opted out while it was dead and about a
/// bystander.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// It has said that it is LIVE.
    pub(crate) live: bool,
    /// It allows the bystander, and knows of the opt-out.
    pub(crate) allowed_bystander: bool,
    /// Answers before it was LIVE.
    pub(crate) early: BTreeMap<Reason, u64>,
    /// Answers about those who opted out.
    pub(crate) opted_out: u64,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

impl Seen {
    /// Two answers, then the state: not yet LIVE after them means not LIVE before them.
    pub(crate) async fn ask(
        &mut self,
        node: &mut Node,
        person: &str,
        bystander: &str,
        since: i64,
    ) -> anyhow::Result<()> {
        let artifact = clients::artifact(PRODUCT, "input", since);
        let other = node.answers.ask(bystander, artifact.clone(), None).await?;
        let answer = node.answers.ask(person, artifact, None).await?;
        self.opted_out += 1;
        if answer.allows() {
            self.wrong.push(format!("ALLOW for one who opted out: {:?}", answer.response));
        }
        let status = node.status().await?;
        self.live |= status.state() == SidecarState::Live;
        self.allowed_bystander = other.allows() && answer.response.reason() == Reason::AccountOptedOut;
        if !self.live {
            *self.early.entry(other.response.reason()).or_default() += 1;
            if other.allows() {
                self.wrong.push(format!("ALLOW before LIVE: {:?}", other.response));
            }
        }
        Ok(())
    }
}
