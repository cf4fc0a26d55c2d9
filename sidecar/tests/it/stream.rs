//! A corpus through StreamCanTrain: the same answers as one by one, and what bounds a stream.

use crate::ledger::{LE_CHAT, Ledger, frames};
use crate::node::{Node, question};
use crate::script::{Authority, long, soon, until};
use consent::clock;
use consent::convert::to_timestamp;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::{
    Artifact, CanTrainRequest, Decision, IdColumn, Position, Reason, StreamCanTrainRequest,
    StreamCanTrainResponse,
};
use consent_core::event::Event;
use consent_core::words::{Choice, Party, PlanIndex, Restriction, Timestamp};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;
use uuid::Uuid;

/// Draws the same numbers in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}

const ACCOUNTS: usize = 12;
const KINDS: [&str; 4] = ["input", "output", "", "no such kind"];
const PRODUCTS: [&str; 3] = ["le_chat", "ai_studio", ""];

/// The n-th account, by a UUID: each stands somewhere else, and the last few nobody has ever mentioned.
fn account(n: usize) -> Uuid {
    Uuid::from_u128(0xf81d_4fae_7dec_11d0_a765_00a0_c91e_0000 + n as u128)
}

fn artifact(n: usize) -> Uuid {
    Uuid::from_u128(0x0a0b_0c0d_0000_0000_0000_0000_0000_0000 + n as u128)
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    for n in 0..ACCOUNTS - 3 {
        let key = ledger.account(&account(n).to_string());
        let party = Party::Account(key);
        ledger.append(Event::PlanSet { party, product: LE_CHAT, plan: PlanIndex::new(1) });
        match n % 6 {
            1 => drop(ledger.append(Event::ConsentSet { party, product: LE_CHAT, choice: Choice::Out })),
            2 => drop(ledger.append(Event::ConsentSet { party, product: LE_CHAT, choice: Choice::In })),
            3 => {
                let restriction = Restriction::Minor;
                ledger.append(Event::Restricted { account: key, restriction });
            }
            4 => drop(ledger.append(Event::AccountErased { account: key })),
            _ => (),
        }
    }
    for n in 0..3 {
        let artifact = ledger.id_key.artifact(&artifact(n).to_string());
        ledger.append(Event::ArtifactExcluded { artifact });
    }
    ledger
}

/// A message of so many random artifacts, and the same as single questions.
fn message(draw: &mut Draw, items: usize) -> (StreamCanTrainRequest, Vec<CanTrainRequest>) {
    let now = clock::wall().millis();
    let product = (*draw.of(&PRODUCTS)).to_owned();
    let (mut accounts, mut artifacts) = (Vec::new(), Vec::new());
    let (mut kind_indexes, mut collected, mut incognito) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..items {
        accounts.push(account(draw.below(ACCOUNTS)));
        artifacts.push(artifact(draw.below(9)));
        kind_indexes.push(draw.below(KINDS.len()) as u8);
        // Never so near to now that an answer changes while the test goes on.
        collected.push(*draw.of(&[now - 60_000, now - 7_200_000, 0, -5, now + 3_600_000, 1]));
        incognito.push(draw.below(4) == 0);
    }
    if draw.below(3) == 0 {
        incognito.clear();
    }
    let mut kinds = KINDS.map(str::to_owned).to_vec();
    if draw.below(3) == 0 {
        kinds.truncate(1);
        kind_indexes.clear();
    }
    let single = |n: usize| CanTrainRequest {
        account: accounts[n].to_string(),
        artifact: Some(Artifact {
            id: artifacts[n].to_string(),
            product: product.clone(),
            kind: kinds[usize::from(kind_indexes.get(n).copied().unwrap_or(0))].clone(),
            collected_at: (collected[n] != 0).then(|| to_timestamp(Timestamp::from_millis(collected[n]))),
            incognito: incognito.get(n).copied().unwrap_or(false),
        }),
        min_position: None,
    };
    let singles = (0..items).map(single).collect();
    let mut column = |ids: &[Uuid]| {
        if draw.below(2) == 0 {
            IdColumn::of_uuids(ids.iter().map(|id| *id.as_bytes()))
        } else {
            IdColumn::of_texts(ids.iter().map(Uuid::to_string))
        }
    };
    let message = StreamCanTrainRequest {
        accounts: Some(column(&accounts)),
        artifacts: Some(column(&artifacts)),
        product,
        kinds,
        kind_indexes: kind_indexes.into(),
        collected_at_millis: collected,
        incognito,
        min_position: None,
    };
    (message, singles)
}

/// So many prompts of `ada` from a minute ago.
fn prompts(items: usize) -> StreamCanTrainRequest {
    StreamCanTrainRequest {
        product: "le_chat".to_owned(),
        accounts: Some(IdColumn::of_texts(vec!["ada"; items])),
        artifacts: Some(IdColumn::of_uuids((0..items).map(|n| *artifact(100 + n).as_bytes()))),
        kinds: vec!["input".to_owned()],
        collected_at_millis: vec![clock::wall().millis() - 60_000; items],
        ..StreamCanTrainRequest::default()
    }
}

type Messages = mpsc::Sender<StreamCanTrainRequest>;

async fn open(
    decisions: &DecisionServiceClient<Channel>,
) -> Result<(Messages, Streaming<StreamCanTrainResponse>), Status> {
    let (messages, sent) = mpsc::channel(1);
    let answers = decisions.clone().stream_can_train(ReceiverStream::new(sent)).await?.into_inner();
    Ok((messages, answers))
}

async fn next(answers: &mut Streaming<StreamCanTrainResponse>) -> StreamCanTrainResponse {
    soon("an answer", answers.message()).await.expect("no status").expect("no end")
}

async fn status(answers: &mut Streaming<StreamCanTrainResponse>) -> Status {
    soon("a status", answers.message()).await.expect_err("a status")
}

fn why(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().expect("ErrorInfo").reason)
}

#[tokio::test]
async fn a_corpus_is_answered_as_its_artifacts_would_be_one_by_one() {
    let (mut authority, ledger) = (Authority::start().await, ledger());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    let (messages, mut answers) = open(&node.decisions).await.expect("a stream");
    let mut draw = Draw(7);
    let mut seen = std::collections::BTreeSet::new();
    for items in [1, 2, 63, 64, 65, 100, 257] {
        let (message, singles) = message(&mut draw, items);
        messages.send(message).await.expect("the stream goes on");
        let answer = next(&mut answers).await;
        let here = Position { epoch: vec![1; 16].into(), revision: ledger.place.revision.get() };
        assert_eq!(answer.position, Some(here));
        let mut allows = false;
        let StreamCanTrainResponse { decisions, reasons, finals, .. } = &answer;
        assert_eq!((decisions.len(), reasons.len(), finals.len()), (items, items, items));
        for (n, single) in singles.into_iter().enumerate() {
            let alone =
                node.decisions.clone().can_train(single.clone()).await.expect("an answer").into_inner();
            let of_corpus = (decisions[n], reasons[n], finals[n]);
            assert_eq!(of_corpus, (alone.decision, alone.reason, alone.r#final), "{single:?}");
            allows |= alone.decision() == Decision::Allow;
            seen.insert(alone.reason);
        }
        assert_eq!(answer.valid_for.is_some(), allows);
    }
    assert!(seen.len() >= 9, "only {seen:?} were met");
    drop(messages);
    assert!(soon("the end", answers.message()).await.expect("no status").is_none());
}

#[tokio::test]
async fn as_many_as_there_may_be_are_answered() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    let (messages, mut answers) = open(&node.decisions).await.expect("a stream");
    messages.send(prompts(4096)).await.expect("the stream goes on");
    let answer = next(&mut answers).await;
    assert_eq!(answer.decisions, vec![i32::from(Decision::Allow); 4096]);
    assert_eq!(answer.reasons, vec![i32::from(Reason::PlanDefaultIn); 4096]);
    messages.send(prompts(4097)).await.expect("the stream goes on");
    assert_eq!(why(&status(&mut answers).await), (Code::InvalidArgument, "BATCH_TOO_LARGE".to_owned()));
}

#[tokio::test]
async fn without_a_table_a_corpus_is_denied_and_a_wrong_message_ends_it() {
    let authority = Authority::start().await;
    let node = Node::start(&[&authority]).await;
    let (messages, mut answers) = open(&node.decisions).await.expect("a stream");
    messages.send(prompts(2)).await.expect("the stream goes on");
    let answer = next(&mut answers).await;
    assert_eq!(answer.reasons, vec![i32::from(Reason::NotReady); 2]);
    assert_eq!(answer.decisions, vec![i32::from(Decision::Deny); 2]);
    assert!(answer.position.is_none() && answer.valid_for.is_none());

    let wrong = StreamCanTrainRequest { accounts: Some(IdColumn::of_texts(["ada", ""])), ..prompts(2) };
    messages.send(wrong).await.expect("the stream goes on");
    let status = status(&mut answers).await;
    assert_eq!(why(&status), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    let field = &status.get_details_error_info().expect("ErrorInfo").metadata["field"];
    assert_eq!(field, "accounts.texts[1]");
    assert!(soon("the end", answers.message()).await.expect("nothing more").is_none());
}

#[tokio::test]
async fn a_min_position_is_waited_for_by_each_message() {
    let (mut authority, mut ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    let (messages, mut answers) = open(&node.decisions).await.expect("a stream");
    let at_least = |revision| StreamCanTrainRequest {
        min_position: Some(Position { epoch: vec![1; 16].into(), revision }),
        ..prompts(2)
    };
    messages.send(at_least(9)).await.expect("the stream goes on");
    assert_eq!(next(&mut answers).await.reasons, vec![i32::from(Reason::Stale); 2]);
    session.say(frames([ledger.choose(Choice::Out)])).await;
    messages.send(at_least(3)).await.expect("the stream goes on");
    let answer = next(&mut answers).await;
    assert_eq!(answer.reasons, vec![i32::from(Reason::AccountOptedOut); 2]);
    assert_eq!(answer.position.map(|position| position.revision), Some(3));
}

#[tokio::test]
async fn who_stops_reading_is_not_read_from_and_disturbs_nobody() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    // Room for some answers on the way.
    let endpoint = Channel::from_shared(format!("http://{}", node.sidecar.address())).expect("an address");
    let narrow = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let decisions = DecisionServiceClient::new(narrow.connect().await.expect("it listens"));
    let (messages, mut answers) = open(&decisions).await.expect("a stream");
    // 160 kB each.
    let message = prompts(4096);
    let mut sent = 0;
    while sent < 400 {
        let send = messages.send(message.clone());
        if tokio::time::timeout(Duration::from_millis(500), send).await.is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 400, "as much as one may send is taken");
    node.answers(Reason::PlanDefaultIn).await;
    // What was taken is answered, once it is read.
    drop(messages);
    for _ in 0..sent {
        assert_eq!(next(&mut answers).await.reasons.len(), 4096);
    }
    assert!(soon("the end", answers.message()).await.expect("no status").is_none());
}

#[tokio::test]
async fn one_stream_too_many_is_told_to_try_again() {
    let authority = Authority::start().await;
    let node = Node::start(&[&authority]).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(open(&node.decisions).await.expect("a stream"));
    }
    let status = open(&node.decisions).await.expect_err("one too many");
    assert_eq!(why(&status), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
    assert!(status.get_details_retry_info().and_then(|info| info.retry_delay).is_some());
    // Its place is free when a stream is over.
    drop(streams.pop());
    let again = || async { open(&node.decisions).await.is_ok() };
    until("a place", again, |is_open| *is_open).await;
    assert_eq!(
        node.decisions.clone().can_train(question("ada")).await.expect("an answer").get_ref().reason(),
        Reason::NotReady
    );
}

#[tokio::test]
async fn a_sidecar_that_stops_ends_its_streams_with_a_status() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let node = Node::start(&[&authority]).await;
    let _session = authority.bring_to_life(&ledger, long()).await;
    node.answers(Reason::PlanDefaultIn).await;
    let (messages, mut answers) = open(&node.decisions).await.expect("a stream");
    messages.send(prompts(1)).await.expect("the stream goes on");
    next(&mut answers).await;
    let Node { sidecar, .. } = node;
    let stopping = tokio::spawn(sidecar.stop());
    assert_eq!(why(&status(&mut answers).await), (Code::Unavailable, "NOT_SERVING".to_owned()));
    drop((messages, answers));
    soon("the stop", stopping).await.expect("no panic");
}
