//! What commands come to: no-ops, refusals, first mentions, batches.

use consent_core::command::Command;
use consent_core::event::Event;
use consent_core::head::{AccountHead, HeadKey};
use consent_core::ledger::{Broken, NotLoaded, State};
use consent_core::refusal::Refusal;
use consent_core::words::{
    Choice, Party, PlanIndex, ProductIndex, Restriction, Revision, Seconds, Timestamp,
};

use crate::ledger::{Ledger, MISTRAL, account, artifact, company, member, name, organization};

fn consent(choice: Choice, expected: Option<Revision>) -> Command {
    Command::SetConsent { party: member("ada"), product: name("le_chat"), choice, expected }
}

fn plan(text: &str) -> Command {
    Command::SetPlan {
        party: member("ada"),
        product: name("le_chat"),
        plan: Some(name(text)),
        expected: None,
    }
}

/// One of each kind, each of which changes something when they come in this order.
fn all() -> Vec<Command> {
    let ada = account("ada");
    vec![
        Command::PutOrganization { organization: organization("initech"), expected: None },
        Command::PutAccount { account: ada, organization: Some(organization("acme")), expected: None },
        plan("free"),
        plan("never_heard_of"),
        consent(Choice::In, None),
        consent(Choice::Out, None),
        Command::SetConsent {
            party: company("acme"),
            product: name("ai_studio"),
            choice: Choice::In,
            expected: None,
        },
        Command::SetPlan { party: company("acme"), product: name("le_chat"), plan: None, expected: None },
        Command::SetPlan {
            party: company("hooli"),
            product: name("le_chat"),
            plan: Some(name("teams")),
            expected: None,
        },
        Command::Restrict { account: ada, restriction: Restriction::Minor, expected: None },
        Command::Lift { account: ada, restriction: Restriction::Minor, expected: None },
        Command::Lift { account: account("bob"), restriction: Restriction::Minor, expected: None },
        Command::PutAccount { account: ada, organization: None, expected: None },
        Command::ExcludeArtifact { artifact: artifact("a chat") },
        Command::EraseAccount { account: ada, expected: None },
    ]
}

#[test]
fn a_command_given_twice_changes_nothing_the_second_time() {
    let mut ledger = Ledger::mistral();
    for command in all() {
        let first = ledger.run(&command);
        // Acme is known by then and had no plan: setting none is a repeat of nothing.
        let is_change = !matches!(command, Command::SetPlan { plan: None, .. });
        assert_eq!(first.as_ref().is_ok_and(|events| *events > 0), is_change, "{command:?}: {first:?}");
        let before = ledger.state.clone();
        assert_eq!(ledger.run(&command), Ok(0), "{command:?}");
        assert_eq!(ledger.state, before);
    }
}

#[test]
fn a_repeat_is_not_held_against_what_it_expected() {
    let mut ledger = Ledger::mistral();
    ledger.choose(member("ada"), "le_chat", Choice::Out);
    let again = consent(Choice::In, Some(ledger.rev(member("ada"))));
    assert_eq!(ledger.run(&again), Ok(1));
    assert_eq!(ledger.run(&again), Ok(0), "the head has moved on, and what is wanted is so");
}

#[test]
fn an_opt_out_is_never_refused_for_state() {
    let stale = Revision::new(999);
    for expected in [None, Some(Revision::ZERO), stale] {
        let out = consent(Choice::Out, expected);
        let mut unknown = Ledger::mistral();
        assert_eq!(unknown.run(&out), Ok(1));
        let known = unknown.known("ada");
        assert_eq!(known.product(ProductIndex(1)).choice, Some(Choice::Out));

        let mut opted_in = Ledger::mistral();
        opted_in.choose(member("ada"), "le_chat", Choice::In);
        assert_eq!(opted_in.run(&out), Ok(1));

        let mut blocked = Ledger::mistral();
        for restriction in Restriction::ALL {
            blocked.restrict("ada", restriction);
        }
        assert_eq!(blocked.run(&out), Ok(1));

        let mut erased = Ledger::mistral();
        erased.run(&Command::EraseAccount { account: account("ada"), expected: None }).unwrap();
        let before = erased.state.clone();
        assert_eq!(erased.run(&out), Ok(0));
        assert_eq!(erased.state, before);
        assert!(out.is_opt_out());
    }
}

#[test]
fn an_erased_account_takes_nothing_else() {
    let mut ledger = Ledger::mistral();
    ledger.put("ada", None);
    ledger.run(&Command::EraseAccount { account: account("ada"), expected: None }).unwrap();
    for command in all() {
        let is_hers = command.reads().next() == Some(HeadKey::Account(account("ada")));
        if is_hers && !command.is_opt_out() && !matches!(command, Command::EraseAccount { .. }) {
            assert_eq!(ledger.run(&command), Err(Refusal::AccountErased), "{command:?}");
        }
    }
    let event = Event::Restricted { account: account("ada"), restriction: Restriction::Minor };
    let next = ledger.state.revision().next().unwrap();
    let now = Timestamp::from_millis(ledger.now);
    assert_eq!(ledger.state.apply(&event, next, now), Err(Broken::Erased));
}

#[test]
fn an_opt_in_over_an_opt_out_must_have_seen_it() {
    let mut ledger = Ledger::mistral();
    ledger.choose(member("ada"), "le_chat", Choice::Out);
    let seen = ledger.rev(member("ada"));
    assert_eq!(
        ledger.run(&consent(Choice::In, None)),
        Err(Refusal::ExpectedRevisionMissing { actual: seen })
    );
    ledger.choose(member("ada"), "ai_studio", Choice::Out);
    let actual = ledger.rev(member("ada"));
    assert_eq!(
        ledger.run(&consent(Choice::In, Some(seen))),
        Err(Refusal::Conflict { expected: seen, actual })
    );
    assert_eq!(ledger.run(&consent(Choice::In, Some(actual))), Ok(1));
    let mut fresh = Ledger::mistral();
    assert_eq!(fresh.run(&consent(Choice::In, None)), Ok(1), "nothing stands against a first opt-in");
}

#[test]
fn where_a_revision_is_expected_it_must_be_the_heads() {
    let wrong = Revision::new(77);
    let mut ledger = Ledger::mistral();
    let actual = Revision::ZERO;
    let refused = Err(Refusal::Conflict { expected: Revision::new(77).unwrap(), actual });
    let ada = account("ada");
    for command in [
        Command::PutAccount { account: ada, organization: None, expected: wrong },
        Command::PutOrganization { organization: organization("acme"), expected: wrong },
        Command::SetPlan { party: member("ada"), product: name("le_chat"), plan: None, expected: wrong },
        consent(Choice::In, wrong),
        Command::Restrict { account: ada, restriction: Restriction::Minor, expected: wrong },
        Command::Lift { account: ada, restriction: Restriction::Minor, expected: wrong },
        Command::EraseAccount { account: ada, expected: wrong },
    ] {
        assert_eq!(ledger.run(&command), refused, "{command:?}");
    }
    let first = Command::PutAccount { account: ada, organization: None, expected: Some(Revision::ZERO) };
    assert_eq!(ledger.run(&first), Ok(1), "revision 0: there must be no head yet");
}

#[test]
fn any_command_on_an_unknown_account_makes_it_known() {
    for command in all() {
        let mut ledger = Ledger::mistral();
        let Some(HeadKey::Account(key)) = command.reads().next() else { continue };
        ledger.at(20_500).run(&command).unwrap();
        match ledger.state.account(key).unwrap() {
            Some(AccountHead::Known(known)) => {
                let since: Vec<_> = known.products.iter().map(|product| product.allow_since).collect();
                assert_eq!(since, [Seconds::new(21); 2], "{command:?}");
            }
            Some(AccountHead::Erased { .. }) => assert!(matches!(command, Command::EraseAccount { .. })),
            None => panic!("{command:?} left it unknown"),
        }
    }
}

#[test]
fn one_event_changes_one_head_and_a_command_may_take_two() {
    let mut ledger = Ledger::mistral();
    let join = Command::PutAccount {
        account: account("ada"),
        organization: Some(organization("acme")),
        expected: None,
    };
    assert_eq!(ledger.run(&join), Ok(2));
    assert_eq!(ledger.run(&plan("gold")), Ok(2));
    let keys: Vec<_> = ledger.changes.iter().skip(1).map(|change| change.key).collect();
    let ada = HeadKey::Account(account("ada"));
    assert_eq!(keys, [HeadKey::Organization(organization("acme")), ada, HeadKey::Policy, ada]);
    for change in &ledger.changes {
        assert_eq!(change.after.rev(), change.revision);
        assert_eq!(change.record().key.kind(), change.after.kind());
    }
    assert_eq!(ledger.run(&plan("gold")), Ok(0));
    let again = Command::SetPlan {
        party: company("acme"),
        product: name("le_chat"),
        plan: Some(name("gold")),
        expected: None,
    };
    assert_eq!(ledger.run(&again), Ok(1), "the name has its index by now");
}

#[test]
fn a_plan_that_gets_no_index_any_more_denies_for_good() {
    let mut ledger = Ledger::mistral();
    for number in 0..70 {
        ledger.run(&plan(&format!("gold_{number}"))).unwrap();
    }
    let product = ledger.state.policy().product_index("le_chat").unwrap();
    assert_eq!(ledger.known("ada").product(product).plan, Some(PlanIndex::NONE_LEFT));
    assert_eq!(ledger.state.policy().product(product).unwrap().plans.len(), 62);
    let before = ledger.state.revision();
    assert_eq!(ledger.run(&plan("gold_99")), Ok(0));
    assert_eq!(ledger.state.revision(), before);
}

#[test]
fn a_product_that_no_policy_named_is_a_wrong_argument() {
    let mut ledger = Ledger::mistral();
    for command in [
        Command::SetConsent {
            party: member("ada"),
            product: name("chat"),
            choice: Choice::Out,
            expected: None,
        },
        Command::SetPlan { party: company("acme"), product: name("chat"), plan: None, expected: None },
    ] {
        let refusal = ledger.run(&command).unwrap_err();
        assert!(matches!(refusal, Refusal::Invalid { field, .. } if field == "product"));
    }
    assert_eq!(ledger.state.account(account("ada")), Ok(None));
}

#[test]
fn publishing_rewrites_no_account_and_a_new_product_opens_nothing_old() {
    let mut ledger = Ledger::mistral();
    ledger.at(2_000).plan(member("ada"), "le_chat", Some("free"));
    let head = ledger.known("ada").clone();
    let grown = MISTRAL.replace("version = 1", "version = 2").replace(
        "loosens = []",
        "loosens = [\"product.api.incognito\", \"product.api.plan.free\", \"product.api.kind.input\"]",
    ) + "[product.api]\nincognito = \"deny\"\nplan.free = { mode = \"default_in\" }\nkind.input = \"trainable\"\n";
    assert_eq!(ledger.at(20_000).publish(&grown), Ok(1));
    assert_eq!(*ledger.known("ada"), head);
    ledger.at(30_000).plan(member("ada"), "api", Some("free"));
    assert_eq!(ledger.known("ada").products.len(), 3);
    let reason = |c| ledger.ask(crate::ledger::about("api", "input", c)).reason.as_str();
    assert_eq!([reason(25_000), reason(36_000)], ["COLLECTED_BEFORE_ALLOWED", "PLAN_DEFAULT_IN"]);
}

#[test]
fn a_batch_knows_what_it_did_not_load() {
    let ledger = Ledger::mistral();
    let mut batch =
        State::batch(ledger.state.revision(), ledger.state.recorded_at(), ledger.state.policy().clone());
    let (ada, acme) = (HeadKey::Account(account("ada")), HeadKey::Organization(organization("acme")));
    let join = Command::PutAccount {
        account: account("ada"),
        organization: Some(organization("acme")),
        expected: None,
    };
    assert_eq!(join.reads().collect::<Vec<_>>(), [ada, acme]);
    assert!(!batch.is_loaded(ada));
    assert_eq!(batch.decide(&join), Err(Refusal::Internal));
    let event = Event::AccountErased { account: account("ada") };
    let next = batch.revision().next().unwrap();
    let now = Timestamp::from_millis(5_000);
    assert_eq!(batch.apply(&event, next, now), Err(Broken::NotLoaded(NotLoaded(ada))));

    for key in join.reads() {
        batch.load(key, None).unwrap();
    }
    for event in batch.decide(&join).unwrap() {
        let next = batch.revision().next().unwrap();
        batch.apply(&event, next, now).unwrap();
    }
    // The second command of the batch sees what the first did.
    assert_eq!(batch.decide(&join), Ok(vec![]));
    let opt_out = consent(Choice::Out, None);
    assert_eq!(batch.decide(&opt_out).unwrap().len(), 1);
}

#[test]
fn an_event_that_cannot_be_next_changes_nothing() {
    let mut ledger = Ledger::mistral();
    ledger.at(20_000).put("ada", None);
    let before = ledger.state.clone();
    let here = ledger.state.revision();
    let next = here.next().unwrap();
    let now = Timestamp::from_millis(20_000);
    let put = Event::OrganizationPut { organization: organization("acme") };
    let product = ProductIndex(7);
    let party = Party::Account(account("ada"));
    let plan = PlanIndex::new(40).unwrap();
    let joins = Event::AccountPut { account: account("ada"), organization: Some(organization("acme")) };
    let named = |text| Event::PlanNamed {
        product: ProductIndex(0),
        plan: PlanIndex::new(3).unwrap(),
        name: name(text),
    };
    for (event, revision, at, broken) in [
        (put.clone(), here, now, Broken::NotNext { have: here, got: here }),
        (put, next, Timestamp::from_millis(19_999), Broken::ClockFell(next)),
        (Event::ConsentSet { party, product, choice: Choice::In }, next, now, Broken::NoProduct(product)),
        (
            Event::PlanSet { party, product: ProductIndex(0), plan: Some(plan) },
            next,
            now,
            Broken::NoPlan(plan),
        ),
        (joins, next, now, Broken::NoOrganization),
        (named("scale"), next, now, Broken::NoPlan(PlanIndex::new(3).unwrap())),
    ] {
        assert_eq!(ledger.state.apply(&event, revision, at), Err(broken), "{event:?}");
        assert_eq!(ledger.state, before);
    }
    assert!(
        ledger.state.apply(&named("gold"), next, now).is_ok(),
        "3 is the next index of ai_studio's plans"
    );
}
