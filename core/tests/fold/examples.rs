//! The examples of rule.md, one test each, and the lines of its section 6 that no table shows.

use consent_core::command::Command;
use consent_core::decision::Reason::{self, *};
use consent_core::decision::{Decider, Decision, Question, decide};
use consent_core::event::Event;
use consent_core::head::{AccountHead, HeadKey, HeadKind};
use consent_core::ledger::State;
use consent_core::policy::{Guard, PolicyFile};
use consent_core::words::{Choice, Restriction, Seconds, Timestamp};

use crate::ledger::{Ledger, MISTRAL, about, account, artifact, company, member};

fn free() -> Ledger {
    let mut ledger = Ledger::mistral();
    ledger.at(2_000).plan(member("ada"), "le_chat", Some("free"));
    ledger
}

fn reason(ledger: &Ledger, collected_at: i64) -> Reason {
    ledger.ask(about("le_chat", "input", collected_at)).reason
}

#[test]
fn section_3_an_opt_in_under_a_plan_that_had_closed_is_an_edge() {
    let mut ledger = free();
    let closed = MISTRAL.replace("version = 1", "version = 2").replace(
        "plan.free = { mode = \"default_in\" }",
        "plan.free = { mode = \"default_out\", opt_in = \"owner\" }",
    );
    ledger.at(100_000).publish(&closed).unwrap();
    ledger.at(200_000).choose(member("ada"), "le_chat", Choice::In);
    assert_eq!(reason(&ledger, 150_000), CollectedBeforeAllowed);
    assert_eq!(reason(&ledger, 206_000), AccountOptedIn);
}

#[test]
fn section_4_a_plan_bought_after_it_opened_keeps_what_was_allowed_all_along() {
    let closed = "plan.pro = { mode = \"default_out\", opt_in = \"owner\" }";
    let open = "plan.pro = { mode = \"default_in\" }";
    let mut ledger = Ledger::under(&MISTRAL.replace(open, closed));
    ledger.at(10_000).plan(member("ada"), "le_chat", Some("free"));
    let opened = MISTRAL
        .replace("version = 1", "version = 2")
        .replace("loosens = []", "loosens = [\"product.le_chat.plan.pro\"]");
    ledger.at(100_000).publish(&opened).unwrap();
    ledger.at(200_000).plan(member("ada"), "le_chat", Some("pro"));
    assert_eq!(reason(&ledger, 50_000), PlanDefaultIn);
}

#[test]
fn section_6_a_wait_never_hides_a_never() {
    let mut ledger = free();
    ledger.at(20_000).restrict("ada", Restriction::Suspended);
    assert_eq!(
        ledger.ask(about("le_chat", "input", 10_000)),
        Decision { reason: Suspended, is_final: false }
    );
    ledger.choose(member("ada"), "le_chat", Choice::Out);
    let question = about("le_chat", "input", 10_000);
    assert_eq!(ledger.ask(question), Decision { reason: AccountOptedOut, is_final: true });
    assert_eq!(ledger.hits(question).iter().collect::<Vec<_>>(), [AccountOptedOut, Suspended]);
}

#[test]
fn section_7_as_of_the_past() {
    let (day, hour) = (1_700_000_000_000, 3_600_000);
    let at = |hours: i64| day + hours * hour;
    let mut ledger = Ledger::mistral();
    ledger.at(at(1)).plan(member("ada"), "le_chat", Some("free"));
    let question = about("le_chat", "input", at(9));
    let morning = ledger.at(at(9) + hour / 2).ask(question).reason;
    let out = ledger.at(at(10)).choose(member("ada"), "le_chat", Choice::Out).ask(question).reason;
    let again = ledger.at(at(11)).choose(member("ada"), "le_chat", Choice::In).ask(question).reason;
    assert_eq!([morning, out, again], [PlanDefaultIn, AccountOptedOut, CollectedBeforeAllowed]);
}

#[test]
fn a_childs_data_does_not_open_on_a_birthday_and_a_courts_does_after_the_case() {
    for (restriction, during, after) in [
        (Restriction::Minor, Minor, CollectedBeforeAllowed),
        (Restriction::Region, Region, CollectedBeforeAllowed),
        (Restriction::LegalHold, LegalHold, PlanDefaultIn),
        (Restriction::Suspended, Suspended, PlanDefaultIn),
    ] {
        let mut ledger = free();
        ledger.at(20_000).restrict("ada", restriction);
        assert_eq!(reason(&ledger, 10_000), during);
        ledger.at(40_000).lift("ada", restriction);
        assert_eq!([reason(&ledger, 10_000), reason(&ledger, 30_000)], [after; 2]);
        assert_eq!(reason(&ledger, 46_000), PlanDefaultIn);
    }
}

#[test]
fn moving_denies_the_instant_of_the_move() {
    let mut ledger = free();
    ledger.at(20_000).put("ada", Some("acme"));
    ledger.plan(company("acme"), "le_chat", Some("teams")).choose(company("acme"), "le_chat", Choice::In);
    assert_eq!(
        reason(&ledger, 10_000),
        CollectedBeforeAllowed,
        "a new owner does not open what was before him"
    );
    assert_eq!(reason(&ledger, 30_000), OrganizationOptedIn);
    ledger.at(40_000).put("ada", None);
    assert_eq!(reason(&ledger, 30_000), CollectedBeforeAllowed, "the old one could not opt it out any more");
}

#[test]
fn instants_that_are_missing_or_to_come() {
    let ledger = free();
    let question = about("le_chat", "input", 10_000);
    for collected_at in [None, Some(0), Some(-5), Some(i64::MIN)] {
        let collected_at = collected_at.map(Timestamp::from_millis);
        let decision = ledger.ask(Question { collected_at, ..question });
        assert_eq!(decision, Decision { reason: MissingCollectedAt, is_final: true }, "{collected_at:?}");
    }
    let now = ledger.now + 60_000;
    assert_eq!(reason(&ledger, now + 5_000), PlanDefaultIn);
    for late in [now + 5_001, i64::MAX] {
        let decision = ledger.ask(about("le_chat", "input", late));
        assert_eq!(decision, Decision { reason: CollectedInFuture, is_final: false });
    }
    let stopped = decide(&ledger.state, &question, Timestamp::from_millis(i64::MIN));
    assert_eq!(stopped.reason, CollectedInFuture, "a clock at the end of its range does not overflow");
}

#[test]
fn a_covered_denial_is_final_for_old_data_only() {
    let mut ledger = free();
    ledger.at(20_000).choose(member("ada"), "le_chat", Choice::Out);
    let is_final = |collected_at| ledger.ask(about("le_chat", "input", collected_at)).is_final;
    assert!(is_final(25_000), "up to at(R) and the guard");
    assert!(!is_final(25_001), "the node may only be behind");
}

#[test]
fn what_the_policy_does_not_know() {
    let ledger = free();
    let decision = |product, kind| ledger.ask(about(product, kind, 8_000)).reason;
    assert_eq!(decision("", "input"), UnknownProduct);
    assert_eq!(decision("chat", "input"), UnknownProduct);
    assert_eq!(decision("le_chat", ""), UnknownKind);
    assert_eq!(decision("le_chat", "related"), UnknownKind, "it is the other product's");
    assert_eq!(decision("ai_studio", "input"), UnknownPlan);
    let nobody = Question { account: account("bob"), ..about("chat", "input", 8_000) };
    assert_eq!(ledger.ask(nobody).reason, UnknownAccount);
    assert_eq!(Ledger::empty().ask(nobody).reason, UnknownAccount);
}

#[test]
fn what_was_looked_up_for_one_question_counts_for_no_other() {
    let (open, shut) = MISTRAL.split_at(MISTRAL.find("[product.ai_studio]").unwrap());
    let shut = shut.replace("kind.output = \"trainable\"", "kind.output = \"never\"");
    let mut ledger = Ledger::under(&format!("{open}{shut}"));
    ledger.at(2_000).plan(member("ada"), "le_chat", Some("free"));
    ledger.plan(member("ada"), "ai_studio", Some("experiment"));
    let now = Timestamp::from_millis(60_000);
    let mut decider = Decider::new(&ledger.state, now);
    let products = ["le_chat", "ai_studio", "le_chat", "no_such", "le_chat", "ai_studio"];
    for (product, is_incognito) in
        products.into_iter().flat_map(|product| [(product, false), (product, true)])
    {
        for kind in ["output", "output", "input", "no_such", "related", "output"] {
            let question = Question { is_incognito, ..about(product, kind, 10_000) };
            let alone = decide(&ledger.state, &question, now);
            assert_eq!(decider.decide(&question), alone, "{product} {kind}, incognito: {is_incognito}");
        }
    }
    let question = |product| ledger.ask(about(product, "output", 10_000)).reason;
    assert_eq!(["le_chat", "ai_studio"].map(question), [PlanDefaultIn, KindNotTrainable]);
}

#[test]
fn gates_deny_and_their_opening_is_an_edge() {
    let shut = MISTRAL.replace("kind.output = \"trainable\"", "kind.output = \"never\"");
    let mut ledger = Ledger::under(&shut);
    ledger.at(2_000).plan(member("ada"), "le_chat", Some("free"));
    let output = about("le_chat", "output", 10_000);
    let incognito = Question { is_incognito: true, ..about("le_chat", "input", 10_000) };
    assert_eq!(ledger.ask(output).reason, KindNotTrainable);
    assert_eq!(ledger.ask(incognito).reason, Incognito);
    let loosens = "loosens = [\"product.le_chat.incognito\", \"product.le_chat.kind.output\", \
                   \"product.ai_studio.kind.output\"]";
    let open = MISTRAL.replace("version = 1", "version = 2").replace("loosens = []", loosens).replacen(
        "incognito = \"deny\"",
        "incognito = \"as_kind\"",
        1,
    );
    ledger.at(20_000).publish(&open).unwrap();
    for question in [output, incognito] {
        assert_eq!(ledger.ask(question), Decision { reason: CollectedBeforeAllowed, is_final: true });
        let later = Question { collected_at: Some(Timestamp::from_millis(26_000)), ..question };
        assert_eq!(ledger.ask(later).reason, PlanDefaultIn);
    }
    assert_eq!(ledger.ask(about("le_chat", "input", 10_000)).reason, PlanDefaultIn);
}

#[test]
fn an_excluded_artifact_is_excluded_whoever_is_named_as_its_owner() {
    let mut ledger = free();
    ledger.at(3_000).plan(member("bob"), "le_chat", Some("free"));
    ledger.run(&Command::ExcludeArtifact { artifact: artifact("a chat") }).unwrap();
    for owner in ["ada", "bob"] {
        let question = Question { account: account(owner), ..about("le_chat", "input", 20_000) };
        assert_eq!(ledger.ask(question), Decision { reason: ArtifactExcluded, is_final: true });
        let other = Question { artifact: artifact("another"), ..question };
        assert_eq!(ledger.ask(other).reason, PlanDefaultIn);
    }
}

#[test]
fn erased_is_erased_and_nothing_else() {
    let mut ledger = free();
    ledger.at(20_000).restrict("ada", Restriction::Minor).choose(member("ada"), "le_chat", Choice::Out);
    ledger.run(&Command::EraseAccount { account: account("ada"), expected: None }).unwrap();
    let question = about("le_chat", "input", 10_000);
    assert_eq!(ledger.ask(question), Decision { reason: Erased, is_final: true });
    assert_eq!(ledger.hits(question).iter().collect::<Vec<_>>(), [Erased]);
}

#[test]
fn zero_and_the_end_of_time_are_never() {
    // In 2106 stored seconds saturate: whatever opens then does not.
    let mut ledger = Ledger::mistral();
    let late = i64::from(u32::MAX) * 1_000;
    ledger.at(late).plan(member("ada"), "le_chat", Some("free"));
    assert_eq!(reason(&ledger, late + 50_000), CollectedBeforeAllowed);
}

#[test]
fn a_head_that_was_not_loaded_is_not_ready_and_never_unknown() {
    let mut ledger = Ledger::mistral();
    ledger.at(2_000).put("ada", Some("acme")).plan(company("acme"), "le_chat", Some("free"));
    let question = about("le_chat", "input", 20_000);
    assert_eq!(ledger.ask(question).reason, PlanDefaultIn);

    let mut batch =
        State::batch(ledger.state.revision(), ledger.state.recorded_at(), ledger.state.policy().clone());
    let ask = |batch: &State| decide(batch, &question, Timestamp::from_millis(60_000));
    let heads: Vec<_> = ledger.state.heads().map(|(key, head)| (key, head.encode())).collect();
    let ada = HeadKey::Account(account("ada"));
    assert_eq!(ask(&batch), Decision::NOT_READY);
    for (key, bytes) in heads.iter().filter(|(key, _)| *key == ada) {
        batch.load(*key, Some(bytes)).unwrap();
    }
    batch.load(HeadKey::Exclusion(artifact("a chat")), None).unwrap();
    assert_eq!(ask(&batch), Decision::NOT_READY, "its organization is missing");
    for (key, bytes) in &heads {
        batch.load(*key, Some(bytes)).unwrap();
    }
    assert_eq!(ask(&batch).reason, PlanDefaultIn);
}

#[test]
fn a_table_without_the_organization_of_an_account_is_not_ready() {
    let mut ledger = Ledger::mistral();
    ledger.at(2_000).plan(member("ada"), "le_chat", Some("free")).put("ada", Some("acme"));
    let mut table = State::empty();
    for (key, head) in ledger.state.heads().filter(|(key, _)| key.kind() != HeadKind::Organization) {
        table.load(key, Some(&head.encode())).unwrap();
    }
    table.reached(ledger.state.revision(), ledger.state.recorded_at());
    let question = about("le_chat", "input", 20_000);
    assert_eq!(decide(&table, &question, Timestamp::from_millis(60_000)), Decision::NOT_READY);
    assert_eq!(ledger.ask(question).reason, PlanDefaultIn);
}

#[test]
fn a_head_and_gates_that_were_never_open_allow_nothing() {
    // No fold comes to this; a head of zeros must deny all the same.
    let ledger = free();
    let mut table = ledger.state.clone();
    let mut policy = ledger.state.policy().clone();
    policy
        .products
        .iter_mut()
        .flat_map(|product| &mut product.kinds)
        .for_each(|(_, gate)| gate.since = Seconds::ZERO);
    let mut ada = ledger.known("ada").clone();
    ada.products.iter_mut().for_each(|product| product.allow_since = Seconds::ZERO);
    table.load(HeadKey::Policy, Some(&policy.encode())).unwrap();
    table.load(HeadKey::Account(account("ada")), Some(&AccountHead::Known(ada).encode())).unwrap();
    let decision = decide(&table, &about("le_chat", "input", 20_000), Timestamp::from_millis(60_000));
    assert_eq!(decision, Decision { reason: CollectedBeforeAllowed, is_final: true });
}

#[test]
fn a_product_that_was_dropped_is_unknown_and_takes_opt_outs() {
    let mut ledger = free();
    let (chat, studio) = MISTRAL.split_at(MISTRAL.find("[product.ai_studio]").unwrap());
    let top = chat.split("[product.le_chat]").next().unwrap().replace("version = 1", "version = 2");
    ledger.at(20_000).publish(&format!("{top}{studio}")).unwrap();
    let question = about("le_chat", "input", 10_000);
    assert_eq!(ledger.ask(question), Decision { reason: UnknownProduct, is_final: true });
    assert_eq!(ledger.hits(question).iter().collect::<Vec<_>>(), [UnknownProduct]);
    ledger.at(30_000).choose(member("ada"), "le_chat", Choice::Out);
}

#[test]
fn a_guard_is_only_ever_raised() {
    let mut ledger = free();
    let before = ledger.state.policy().guard;
    let mut policy = PolicyFile::parse(MISTRAL).unwrap().document().clone();
    policy.version = 2;
    policy.guard = Guard::ZERO;
    let next = ledger.state.revision().next().unwrap();
    ledger.state.apply(&Event::PolicyPublished { policy }, next, Timestamp::from_millis(9_000)).unwrap();
    assert_eq!(ledger.state.policy().guard, before);
}
