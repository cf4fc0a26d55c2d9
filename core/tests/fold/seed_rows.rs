//! Rows 1 to 15 of DESIGN.md section 3, under `policies/mistral.toml`. Row 16 needs a lease: a sidecar's.

use consent_core::decision::Reason::{self, *};
use consent_core::words::Choice;

use crate::ledger::{Ledger, about, company, member};

const CONSUMER_PLANS: [&str; 3] = ["free", "pro", "student"];
const COMPANY_PLANS: [&str; 2] = ["teams", "enterprise"];

/// Ada is on this plan since two seconds.
fn on(product: &str, plan: &str) -> Ledger {
    let mut ledger = Ledger::mistral();
    ledger.at(2_000).plan(member("ada"), product, Some(plan));
    ledger
}

fn expect(ledger: &Ledger, product: &'static str, kind: &'static str, collected_at: i64, reason: Reason) {
    let decision = ledger.ask(about(product, kind, collected_at));
    assert_eq!(decision.reason, reason, "{product} {kind} from {collected_at}");
}

#[test]
fn rows_1_and_2_a_consumer_plan_is_open_by_default_for_documents_too() {
    for plan in CONSUMER_PLANS {
        let ledger = on("le_chat", plan);
        for kind in ["input", "output", "document"] {
            // Known from 2 s: stored 3, and the guard of 5 s.
            expect(&ledger, "le_chat", kind, 8_000, PlanDefaultIn);
            expect(&ledger, "le_chat", kind, 7_999, CollectedBeforeAllowed);
        }
    }
}

#[test]
fn row_3_an_opt_out_covers_before_and_after() {
    for plan in CONSUMER_PLANS {
        let mut ledger = on("le_chat", plan);
        ledger.at(20_000).choose(member("ada"), "le_chat", Choice::Out);
        for collected_at in [10_000, 30_000] {
            expect(&ledger, "le_chat", "input", collected_at, AccountOptedOut);
        }
    }
}

#[test]
fn rows_4_and_5_a_later_opt_in_opens_only_what_comes_after() {
    for plan in CONSUMER_PLANS {
        let mut ledger = on("le_chat", plan);
        ledger.at(20_000).choose(member("ada"), "le_chat", Choice::Out);
        ledger.at(400_000).choose(member("ada"), "le_chat", Choice::In);
        for collected_at in [10_000, 30_000, 405_999] {
            expect(&ledger, "le_chat", "input", collected_at, CollectedBeforeAllowed);
        }
        expect(&ledger, "le_chat", "input", 406_000, AccountOptedIn);
    }
}

#[test]
fn row_6_a_company_plan_is_closed_by_default() {
    for plan in COMPANY_PLANS {
        expect(&on("le_chat", plan), "le_chat", "input", 20_000, PlanDefaultOut);
        let mut ledger = Ledger::mistral();
        ledger.at(2_000).put("ada", Some("acme")).plan(company("acme"), "le_chat", Some(plan));
        expect(&ledger, "le_chat", "input", 20_000, PlanDefaultOut);
    }
}

#[test]
fn row_7_an_organizations_opt_out_beats_its_members_opt_in() {
    for plan in COMPANY_PLANS {
        let mut ledger = Ledger::mistral();
        ledger.at(2_000).put("ada", Some("acme")).plan(company("acme"), "le_chat", Some(plan));
        ledger.choose(company("acme"), "le_chat", Choice::Out).choose(member("ada"), "le_chat", Choice::In);
        expect(&ledger, "le_chat", "input", 20_000, OrganizationOptedOut);
    }
}

#[test]
fn rows_8_to_10_ai_studio() {
    for kind in ["input", "output", "related"] {
        let mut ledger = on("ai_studio", "experiment");
        expect(&ledger, "ai_studio", kind, 20_000, PlanDefaultIn);
        ledger.at(30_000).choose(member("ada"), "ai_studio", Choice::Out);
        expect(&ledger, "ai_studio", kind, 20_000, AccountOptedOut);
        expect(&on("ai_studio", "scale"), "ai_studio", kind, 20_000, PlanDefaultOut);
    }
}

#[test]
fn row_11_products_are_independent() {
    for (product, plan, other) in [("le_chat", "free", "ai_studio"), ("ai_studio", "experiment", "le_chat")] {
        let mut ledger = on(product, plan);
        ledger.at(5_000).choose(member("ada"), other, Choice::Out);
        expect(&ledger, product, "input", 20_000, PlanDefaultIn);
        expect(&ledger, product, "input", 8_000, PlanDefaultIn);
        ledger.at(30_000).choose(member("ada"), other, Choice::In);
        expect(&ledger, product, "input", 20_000, PlanDefaultIn);
    }
}

#[test]
fn rows_12_and_13_plan_changes() {
    let mut ledger = on("le_chat", "free");
    ledger.at(20_000).plan(member("ada"), "le_chat", Some("teams"));
    expect(&ledger, "le_chat", "input", 10_000, PlanDefaultOut);
    ledger.at(40_000).plan(member("ada"), "le_chat", Some("free"));
    for collected_at in [10_000, 30_000] {
        expect(&ledger, "le_chat", "input", collected_at, CollectedBeforeAllowed);
    }
    expect(&ledger, "le_chat", "input", 46_000, PlanDefaultIn);
}

#[test]
fn row_14_an_explicit_opt_out_survives_every_change() {
    type Change = for<'l> fn(&'l mut Ledger) -> &'l mut Ledger;
    let changes: [Change; 5] = [
        |ledger| ledger.plan(member("ada"), "le_chat", Some("pro")),
        |ledger| ledger.plan(member("ada"), "le_chat", None),
        |ledger| ledger.plan(member("ada"), "le_chat", Some("teams")),
        |ledger| ledger.put("ada", Some("acme")),
        |ledger| ledger.put("ada", None),
    ];
    let mut ledger = on("le_chat", "free");
    ledger.at(10_000).choose(member("ada"), "le_chat", Choice::Out);
    for (step, change) in (0..).zip(changes) {
        change(ledger.at(20_000 + 1_000 * step));
        for collected_at in [8_000, 50_000] {
            expect(&ledger, "le_chat", "input", collected_at, AccountOptedOut);
        }
    }
}

#[test]
fn row_15_an_account_that_nobody_announced() {
    let mut ledger = Ledger::mistral();
    expect(&ledger, "le_chat", "input", 20_000, UnknownAccount);
    ledger.at(30_000).plan(member("ada"), "le_chat", Some("free"));
    expect(&ledger, "le_chat", "input", 20_000, CollectedBeforeAllowed);
}
