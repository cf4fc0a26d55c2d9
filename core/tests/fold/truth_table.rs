//! The 48 cells of rule.md section 2, as they stand there.

use consent_core::decision::Reason::{self, *};
use consent_core::words::Choice;

use crate::ledger::{Ledger, about, company, member};

const POLICY: &str = r#"
schema = 1
name = "modes"
version = 1
[product.le_chat]
incognito = "deny"
plan.default_in = { mode = "default_in" }
plan.default_out = { mode = "default_out", opt_in = "owner" }
plan.locked_out = { mode = "locked_out" }
kind.input = "trainable"
"#;

const UNSET: Option<Choice> = None;
const IN: Option<Choice> = Some(Choice::In);
const OUT: Option<Choice> = Some(Choice::Out);

/// Plan (`nil` is in no policy), the organization's choice, and the reason for an account that is UNSET, IN, OUT.
const ORGANIZATION_HAS_THE_PLAN: [(&str, Option<Choice>, [Reason; 3]); 12] = [
    ("default_in", UNSET, [PlanDefaultIn, AccountOptedIn, AccountOptedOut]),
    ("default_in", IN, [OrganizationOptedIn, AccountOptedIn, AccountOptedOut]),
    ("default_out", UNSET, [PlanDefaultOut, PlanDefaultOut, AccountOptedOut]),
    ("default_out", IN, [OrganizationOptedIn, AccountOptedIn, AccountOptedOut]),
    ("default_in", OUT, [OrganizationOptedOut, OrganizationOptedOut, OrganizationOptedOut]),
    ("default_out", OUT, [OrganizationOptedOut, OrganizationOptedOut, OrganizationOptedOut]),
    ("nil", OUT, [OrganizationOptedOut, OrganizationOptedOut, OrganizationOptedOut]),
    ("locked_out", UNSET, [PlanLockedOut, PlanLockedOut, PlanLockedOut]),
    ("locked_out", IN, [PlanLockedOut, PlanLockedOut, PlanLockedOut]),
    ("locked_out", OUT, [PlanLockedOut, PlanLockedOut, PlanLockedOut]),
    ("nil", UNSET, [UnknownPlan, UnknownPlan, AccountOptedOut]),
    ("nil", IN, [UnknownPlan, UnknownPlan, AccountOptedOut]),
];

const ACCOUNT_HAS_THE_PLAN: [(&str, [Reason; 3]); 4] = [
    ("default_in", [PlanDefaultIn, AccountOptedIn, AccountOptedOut]),
    ("default_out", [PlanDefaultOut, AccountOptedIn, AccountOptedOut]),
    ("locked_out", [PlanLockedOut, PlanLockedOut, PlanLockedOut]),
    ("nil", [UnknownPlan, UnknownPlan, AccountOptedOut]),
];

fn reason(ledger: &Ledger) -> Reason {
    ledger.ask(about("le_chat", "input", 30_000)).reason
}

#[test]
fn an_account_without_a_plan_has_its_organizations() {
    for (plan, its, expected) in ORGANIZATION_HAS_THE_PLAN {
        for (own, expected) in [UNSET, IN, OUT].into_iter().zip(expected) {
            let mut ledger = Ledger::under(POLICY);
            ledger.at(2_000).put("ada", Some("acme")).plan(company("acme"), "le_chat", Some(plan));
            for (party, choice) in [(company("acme"), its), (member("ada"), own)] {
                if let Some(choice) = choice {
                    ledger.choose(party, "le_chat", choice);
                }
            }
            assert_eq!(reason(&ledger), expected, "{plan}, organization {its:?}, account {own:?}");
        }
    }
}

#[test]
fn an_account_with_a_plan_and_no_organization_has_its_own() {
    for (plan, expected) in ACCOUNT_HAS_THE_PLAN {
        for (own, expected) in [UNSET, IN, OUT].into_iter().zip(expected) {
            let mut ledger = Ledger::under(POLICY);
            ledger.at(2_000).plan(member("ada"), "le_chat", Some(plan));
            if let Some(choice) = own {
                ledger.choose(member("ada"), "le_chat", choice);
            }
            assert_eq!(reason(&ledger), expected, "{plan}, account {own:?}");
        }
    }
}

#[test]
fn with_both_plans_both_must_allow() {
    let mut ledger = Ledger::under(POLICY);
    ledger.at(2_000).put("ada", Some("acme"));
    ledger.plan(member("ada"), "le_chat", Some("default_in"));
    ledger.plan(company("acme"), "le_chat", Some("default_out"));
    ledger.choose(member("ada"), "le_chat", Choice::In);
    assert_eq!(reason(&ledger), PlanDefaultOut, "a member does not open a company's plan");
    ledger.at(20_000).choose(company("acme"), "le_chat", Choice::In);
    assert_eq!(reason(&ledger), AccountOptedIn);
    assert_eq!(ledger.ask(about("le_chat", "input", 20_000)).reason, CollectedBeforeAllowed);

    let mut ledger = Ledger::under(POLICY);
    ledger.at(2_000).put("ada", Some("acme")).plan(member("ada"), "le_chat", Some("default_out"));
    ledger.plan(company("acme"), "le_chat", Some("default_in")).choose(
        company("acme"),
        "le_chat",
        Choice::In,
    );
    assert_eq!(reason(&ledger), PlanDefaultOut, "nor a company its member's");
}

#[test]
fn without_any_plan_nothing_is_allowed() {
    let mut ledger = Ledger::under(POLICY);
    ledger.at(2_000).put("ada", Some("acme")).choose(member("ada"), "le_chat", Choice::In);
    assert_eq!(reason(&ledger), UnknownPlan);
}
