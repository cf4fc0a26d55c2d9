//! What no caller should send: each a documented code, an ErrorInfo, the field by name, and a server that lives.
//!
//! Every request goes over a real socket as bytes, most of them spoiled in one place ([`crate::spoiled`]); the same
//! request unspoiled is accepted, so that it is the spoiled place that is refused.

use crate::raw;
use crate::servers::{OPTED_OUT, Servers};
use crate::spoiled::{
    BATCH, CAN_TRAIN, Case, GET_ACCOUNT, GET_CONFIRMATION, PUBLISH, SET_CONSENT, SET_PLAN, STREAM, batch,
    corpus, in_artifact, messages, not_utf8_writes, opt_out, person, plan, policy, question, questions, with,
    writes,
};
use consent::pb::{
    CanTrainRequest, CanTrainResponse, Choice, Decision, GetAccountRequest, GetConfirmationRequest, Position,
    Reason, SetConsentRequest, SetConsentResponse, SetPlanRequest, StreamCanTrainResponse,
};
use prost::Message;
use prost_types::Timestamp;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Sends each case and checks the refusal; after each the server answers a good question.
async fn refused(server: &Channel, cases: Vec<Case>) {
    for (method, message, field) in cases {
        let status = raw::call(server, method, message).await.expect_err(field);
        assert_refusal(&status, Code::InvalidArgument, "INVALID_FIELD", field);
        assert!(status.get_details_bad_request().is_some_and(|bad| bad.field_violations[0].field == field));
        assert_lives(server).await;
    }
}

fn assert_refusal(status: &Status, code: Code, reason: &str, field: &str) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    let named = info.metadata.get("field").map_or("", String::as_str);
    assert_eq!((status.code(), info.reason.as_str(), named), (code, reason, field), "{status:?}");
    assert_eq!(info.domain, "consent.v1");
}

/// The server still answers, and still from its table: a server that has lost it denies too, for another reason.
async fn assert_lives(server: &Channel) {
    let question = CanTrainRequest { account: OPTED_OUT.to_owned(), ..question() }.encode_to_vec();
    let answer: CanTrainResponse = in_time(server, CAN_TRAIN, question, CanTrainResponse::reason).await;
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::AccountOptedOut));
}

/// The answer, asked for again while it is STALE: on a busy machine a read may take longer than an answer holds.
async fn in_time<M>(server: &Channel, method: &str, message: Vec<u8>, reason: impl Fn(&M) -> Reason) -> M
where
    M: Message + Default,
{
    for _ in 0..100 {
        let answer = raw::call(server, method, message.clone()).await.expect("an answer");
        let answer = M::decode(answer).expect("a response");
        if reason(&answer) != Reason::Stale {
            return answer;
        }
    }
    panic!("{method} is answered STALE, time and again")
}

#[tokio::test]
async fn every_wrong_field_is_named_and_the_servers_live() {
    let servers = Servers::start().await;
    for (method, message) in [
        (SET_CONSENT, opt_out().encode_to_vec()),
        (SET_PLAN, plan().encode_to_vec()),
        (CAN_TRAIN, question().encode_to_vec()),
        (BATCH, batch(1000).encode_to_vec()),
        (GET_ACCOUNT, GetAccountRequest { account: "ada".to_owned() }.encode_to_vec()),
    ] {
        raw::call(&servers.authority, method, message).await.expect(method);
    }
    refused(&servers.authority, writes()).await;
    refused(&servers.authority, not_utf8_writes()).await;
    refused(&servers.authority, questions()).await;
    refused(&servers.sidecar, questions()).await;
    for (server, artifacts) in [(&servers.authority, 100), (&servers.sidecar, 4096)] {
        let first = |answer: &StreamCanTrainResponse| answer.reasons().next().expect("an answer");
        let answer = in_time(server, STREAM, corpus(artifacts).encode_to_vec(), first).await;
        assert_eq!(answer.reasons, vec![i32::from(Reason::AccountOptedOut); artifacts]);
        assert_eq!(answer.decisions, vec![i32::from(Decision::Deny); artifacts]);
        refused(server, messages()).await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_servers_live() {
    let servers = Servers::start().await;
    for (server, too_many) in [(&servers.authority, 1001), (&servers.sidecar, 4097)] {
        let status = raw::call(server, BATCH, batch(1001).encode_to_vec()).await.expect_err("1001 questions");
        assert_refusal(&status, Code::InvalidArgument, "BATCH_TOO_LARGE", "requests");
        let many = raw::call(server, STREAM, corpus(too_many).encode_to_vec()).await;
        assert_refusal(&many.expect_err("too many"), Code::InvalidArgument, "BATCH_TOO_LARGE", "accounts");
        let kinds = with(corpus(1), |m| m.kinds = vec![String::new(); 257]);
        let kinds = raw::call(server, STREAM, kinds.encode_to_vec()).await.expect_err("257 kinds");
        assert_refusal(&kinds, Code::InvalidArgument, "BATCH_TOO_LARGE", "kinds");
        for method in [CAN_TRAIN, STREAM] {
            let status = raw::call(server, method, vec![b'x'; 64 << 20]).await.expect_err("64 MiB");
            assert_refusal(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE", "");
            let status = raw::call(server, method, vec![0, 0]).await.expect_err("no message");
            assert_refusal(&status, Code::InvalidArgument, "MALFORMED_MESSAGE", "");
        }
        assert_lives(server).await;
        // A tag of field 0, which no message has.
        let status = raw::call(server, CAN_TRAIN, vec![0, 0]).await.expect_err("no message");
        assert_refusal(&status, Code::InvalidArgument, "MALFORMED_MESSAGE", "");
        // A length that goes past the end.
        let status = raw::call(server, CAN_TRAIN, vec![0x0a, 0x7f, b'a']).await.expect_err("a torn message");
        assert_refusal(&status, Code::InvalidArgument, "INVALID_FIELD", "account");
        assert_lives(server).await;
    }
}

#[tokio::test]
async fn what_is_no_message_is_its_callers_fault_and_the_servers_live() {
    let servers = Servers::start().await;
    for server in [&servers.authority, &servers.sidecar] {
        for (encoding, body, code, reason) in [
            ("identity", "", Code::InvalidArgument, "MALFORMED_MESSAGE"),
            // Said to be compressed, and in no encoding.
            ("identity", "\u{1}\0\0\0\0", Code::InvalidArgument, "MALFORMED_MESSAGE"),
            ("identity", "\u{7}\0\0\0\0", Code::InvalidArgument, "MALFORMED_MESSAGE"),
            // A message that ends before its length is over.
            ("identity", "\0\0\0\0\u{9}a", Code::InvalidArgument, "MALFORMED_MESSAGE"),
            ("gzip", "\u{1}\0\0\0\0", Code::Unimplemented, "UNSUPPORTED_ENCODING"),
            ("no-such-encoding", "\0\0\0\0\0", Code::Unimplemented, "UNSUPPORTED_ENCODING"),
        ] {
            let status = raw::refused(server, CAN_TRAIN, encoding, body).await;
            assert_refusal(&status, code, reason, "");
        }
        assert_lives(server).await;
    }
}

#[tokio::test]
async fn a_policy_file_may_be_wrong_in_any_way_and_its_author_hears_of_it() {
    let servers = Servers::start().await;
    let keys: String = (0..10_000).map(|i| format!("key_{i} = 1\n")).collect();
    let long = "x".repeat(100_000);
    let nested = vec!["a"; 79].join(".");
    for (toml, errors) in [
        (String::new(), "1"),
        (format!("schema = 1\nname = \"many\"\nversion = 9\n{keys}"), "10001"),
        (format!("schema = 1\nname = \"long\"\nversion = 9\n[{long}]\n"), "2"),
        (format!("{}{}", format!("{nested} = {{").repeat(79), "}".repeat(79)), "1"),
    ] {
        let status =
            raw::call(&servers.authority, PUBLISH, policy(&toml).encode_to_vec()).await.expect_err("errors");
        assert_refusal(&status, Code::InvalidArgument, "BAD_POLICY", "");
        assert_eq!(status.get_details_error_info().expect("ErrorInfo").metadata["errors"], errors);
        let violations = status.get_details_bad_request().expect("BadRequest").field_violations;
        assert!((1..=32).contains(&violations.len()) && violations[0].field.starts_with("toml:"));
        assert_lives(&servers.authority).await;
    }
}

#[tokio::test]
async fn names_that_the_policy_does_not_know_are_answers_and_deny() {
    let servers = Servers::start().await;
    raw::call(&servers.authority, SET_PLAN, plan().encode_to_vec()).await.expect("a plan");
    for (spoil, reason) in [
        (in_artifact(|a| a.product = "no_such_product".to_owned()), Reason::UnknownProduct),
        (in_artifact(|a| a.product.clear()), Reason::UnknownProduct),
        (in_artifact(|a| a.kind = "no such kind".to_owned()), Reason::UnknownKind),
        (in_artifact(|a| a.collected_at = None), Reason::MissingCollectedAt),
        (
            in_artifact(|a| a.collected_at = Some(Timestamp { seconds: -5, nanos: 0 })),
            Reason::MissingCollectedAt,
        ),
        (
            in_artifact(|a| {
                a.collected_at = Some(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 })
            }),
            Reason::CollectedInFuture,
        ),
    ] {
        let spoil = CanTrainRequest { account: "bob".to_owned(), ..spoil };
        let answer =
            raw::call(&servers.authority, CAN_TRAIN, spoil.encode_to_vec()).await.expect("an answer");
        let answer = CanTrainResponse::decode(answer).expect("a response");
        assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, reason));
    }
}

#[tokio::test]
async fn a_request_id_names_one_write_for_ever() {
    let servers = Servers::start().await;
    let first = opt_out();
    let send = async |request: &SetConsentRequest| {
        let bytes = raw::call(&servers.authority, SET_CONSENT, request.encode_to_vec()).await?;
        Ok::<_, Status>(SetConsentResponse::decode(bytes).expect("a response").receipt.expect("a receipt"))
    };
    let receipt = send(&first).await.expect("a write");
    let again = send(&first).await.expect("its retry");
    assert_eq!(again, receipt, "of now are only epoch and confirmation, which have not changed");

    type Spoil = fn(&mut SetConsentRequest);
    let others: [Spoil; 3] = [
        |r| r.party = person("eve"),
        |r| r.choice = Choice::In.into(),
        |r| r.product = "ai_studio".to_owned(),
    ];
    for other in others {
        let status = send(&with(first.clone(), other)).await.expect_err("another payload");
        assert_refusal(&status, Code::InvalidArgument, "REQUEST_ID_REUSED", "context.request_id");
    }
    let plan = SetPlanRequest { context: first.context.clone(), ..plan() };
    let status =
        raw::call(&servers.authority, SET_PLAN, plan.encode_to_vec()).await.expect_err("another method");
    assert_refusal(&status, Code::InvalidArgument, "REQUEST_ID_REUSED", "context.request_id");
    assert_lives(&servers.authority).await;
}

#[tokio::test]
async fn an_opt_in_shows_what_it_has_seen_and_an_opt_out_need_not() {
    let servers = Servers::start().await;
    let send = async |request: SetConsentRequest| {
        let bytes = raw::call(&servers.authority, SET_CONSENT, request.encode_to_vec()).await?;
        let receipt = SetConsentResponse::decode(bytes).expect("a response").receipt.expect("a receipt");
        Ok::<u64, Status>(receipt.position.expect("a position").revision)
    };
    // One request_id: what was refused under it is not remembered.
    let unseen = SetConsentRequest { choice: Choice::In.into(), ..opt_out() };
    let opt_in = |seen| SetConsentRequest { expected_revision: seen, ..unseen.clone() };
    let out = send(opt_out()).await.expect("an opt-out");
    let status = send(opt_in(None)).await.expect_err("an opt-in that has seen nothing");
    assert_refusal(&status, Code::InvalidArgument, "EXPECTED_REVISION_MISSING", "expected_revision");
    let status = send(opt_in(Some(out - 1))).await.expect_err("an opt-in that has seen something older");
    assert_refusal(&status, Code::Aborted, "REVISION_CONFLICT", "");
    for ignored in [out - 1, u64::MAX] {
        let stale = with(opt_out(), |r| r.expected_revision = Some(ignored));
        assert_eq!(send(stale).await.expect("an opt-out is never refused for what it ignores"), out);
    }
    send(opt_in(Some(out))).await.expect("an opt-in that has seen the opt-out");
}

#[tokio::test]
async fn a_position_of_another_ledger_is_refused_or_denied() {
    let servers = Servers::start().await;
    let foreign = Position { epoch: vec![7; 16].into(), revision: 1 };
    let question = with(question(), |q| q.min_position = Some(foreign.clone()));
    let answer = raw::call(&servers.sidecar, CAN_TRAIN, question.encode_to_vec()).await.expect("an answer");
    let answer = CanTrainResponse::decode(answer).expect("a response");
    assert_eq!((answer.decision(), answer.reason()), (Decision::Deny, Reason::Stale));

    let chain = vec![9; 32].into();
    let confirmation = GetConfirmationRequest { position: Some(foreign), chain, wait_effective: false };
    let status = raw::call(&servers.authority, GET_CONFIRMATION, confirmation.encode_to_vec()).await;
    let status = status.expect_err("a chain that this ledger does not have");
    assert_refusal(&status, Code::Aborted, "LOST", "");
}
