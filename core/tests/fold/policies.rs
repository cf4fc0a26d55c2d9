//! The policy file: every error of rule.md section 9 with its line and key, and what may follow what.

use consent_core::head::PolicyHead;
use consent_core::policy::{Class, Mode, PolicyFile};
use consent_core::refusal::{PolicyError, Refusal};

use proptest::prelude::*;

use crate::ledger::{Ledger, MISTRAL, name};

/// Every code of section 9, and NOT_TOML for what is no TOML at all.
const CODES: [&str; 21] = [
    "UNKNOWN_KEY",
    "WRONG_TYPE",
    "UNSUPPORTED_SCHEMA",
    "BAD_NAME",
    "DUPLICATE_NAME",
    "VERSION_NOT_RISING",
    "NAME_CHANGED",
    "NO_PRODUCT",
    "NO_PLAN",
    "NO_KIND",
    "TOO_MANY_NAMES",
    "UNKNOWN_MODE",
    "OPT_IN_MISMATCH",
    "COUNTS_AS_UNKNOWN",
    "COUNTS_AS_CHAIN",
    "BAD_INCOGNITO",
    "BAD_GUARD",
    "GUARD_LOWERED",
    "UNDECLARED_LOOSENING",
    "FALSE_LOOSENING",
    "NOT_TOML",
];

const SMALL: &str = r#"schema = 1
name = "small"
version = 2
guard = "5s"
loosens = []
[product.chat]
incognito = "deny"
plan.free = { mode = "default_in" }
plan.team = { mode = "default_out", opt_in = "owner" }
kind.input = "trainable"
kind.file = { counts_as = "input" }
"#;

/// What is written instead of what, and which error that gives: code, line, key.
type Case = (&'static str, &'static str, &'static str, u32, &'static str);

const WRONG_IN_ITSELF: &[Case] = &[
    ("schema = 1", "schema = 2", "UNSUPPORTED_SCHEMA", 1, "schema"),
    ("schema = 1", "", "UNSUPPORTED_SCHEMA", 1, "schema"),
    ("schema = 1", "schema = \"1\"", "WRONG_TYPE", 1, "schema"),
    ("guard = \"5s\"", "gaurd = \"5s\"", "UNKNOWN_KEY", 4, "gaurd"),
    ("incognito = \"deny\"", "incognito = \"deny\"\nnote = 1", "UNKNOWN_KEY", 8, "product.chat.note"),
    ("mode = \"default_in\"", "mode = \"default_in\", x = 1", "UNKNOWN_KEY", 8, "product.chat.plan.free.x"),
    ("counts_as = \"input\"", "counts_as = \"input\", x = 1", "UNKNOWN_KEY", 11, "product.chat.kind.file.x"),
    ("version = 2", "version = \"2\"", "WRONG_TYPE", 3, "version"),
    ("version = 2", "version = 99999999999999999999", "WRONG_TYPE", 3, "version"),
    ("version = 2", "version = 0", "VERSION_NOT_RISING", 3, "version"),
    ("version = 2", "version = -1", "VERSION_NOT_RISING", 3, "version"),
    ("version = 2", "", "VERSION_NOT_RISING", 1, "version"),
    ("name = \"small\"", "name = \"Small\"", "BAD_NAME", 2, "name"),
    ("name = \"small\"", "", "BAD_NAME", 1, "name"),
    ("[product.chat]", "[product.Chat]", "BAD_NAME", 6, "product.Chat"),
    ("plan.free", "plan.\"free plan\"", "BAD_NAME", 8, "product.chat.plan.free plan"),
    ("kind.file", "kind.1file", "BAD_NAME", 11, "product.chat.kind.1file"),
    ("kind.file", "kind.input", "DUPLICATE_NAME", 11, "input"),
    ("loosens = []", "loosens = [\"a\", \"a\"]", "DUPLICATE_NAME", 5, "loosens"),
    ("loosens = []", "loosens = [1]", "WRONG_TYPE", 5, "loosens"),
    ("loosens = []", "loosens = \"a\"", "WRONG_TYPE", 5, "loosens"),
    ("\"default_in\"", "\"open\"", "UNKNOWN_MODE", 8, "product.chat.plan.free.mode"),
    ("{ mode = \"default_in\" }", "{}", "UNKNOWN_MODE", 8, "product.chat.plan.free"),
    ("{ mode = \"default_in\" }", "\"default_in\"", "WRONG_TYPE", 8, "product.chat.plan.free"),
    ("kind.input = \"trainable\"", "kind.input = \"maybe\"", "UNKNOWN_MODE", 10, "product.chat.kind.input"),
    ("kind.input = \"trainable\"", "kind.input = true", "WRONG_TYPE", 10, "product.chat.kind.input"),
    (", opt_in = \"owner\"", "", "OPT_IN_MISMATCH", 9, "product.chat.plan.team"),
    ("\"owner\"", "\"member\"", "OPT_IN_MISMATCH", 9, "product.chat.plan.team.opt_in"),
    (
        "\"default_in\"",
        "\"default_in\", opt_in = \"owner\"",
        "OPT_IN_MISMATCH",
        8,
        "product.chat.plan.free.opt_in",
    ),
    ("counts_as = \"input\"", "counts_as = \"picture\"", "COUNTS_AS_UNKNOWN", 11, "product.chat.kind.file"),
    ("{ counts_as = \"input\" }", "{}", "COUNTS_AS_UNKNOWN", 11, "product.chat.kind.file"),
    ("counts_as = \"input\"", "counts_as = \"file\"", "COUNTS_AS_CHAIN", 11, "product.chat.kind.file"),
    ("incognito = \"deny\"", "incognito = \"ask\"", "BAD_INCOGNITO", 7, "product.chat.incognito"),
    ("incognito = \"deny\"\n", "", "BAD_INCOGNITO", 6, "product.chat"),
    ("guard = \"5s\"", "guard = \"5\"", "BAD_GUARD", 4, "guard"),
    ("guard = \"5s\"", "guard = \"2h\"", "BAD_GUARD", 4, "guard"),
    ("guard = \"5s\"", "guard = 5", "WRONG_TYPE", 4, "guard"),
    ("guard = \"5s\"", "guard = ", "NOT_TOML", 4, ""),
];

/// Against [`SMALL`] in force as version 2, with its guard of 5 s.
const CANNOT_FOLLOW: &[Case] = &[
    ("version = 2", "version = 2", "VERSION_NOT_RISING", 3, "version"),
    ("version = 2", "version = 1", "VERSION_NOT_RISING", 3, "version"),
    ("name = \"small\"\nversion = 2", "name = \"other\"\nversion = 3", "NAME_CHANGED", 2, "name"),
    ("version = 2\nguard = \"5s\"", "version = 3\nguard = \"4s\"", "GUARD_LOWERED", 4, "guard"),
    (
        "version = 2\nguard = \"5s\"\nloosens = []",
        "version = 3\nguard = \"5s\"\nloosens = [\"product.chat.plan.free\"]",
        "FALSE_LOOSENING",
        5,
        "loosens",
    ),
];

fn parse_errors(text: &str) -> Vec<PolicyError> {
    PolicyFile::parse(text).expect_err(text)
}

fn check_errors(text: &str, in_force: &PolicyHead) -> Vec<PolicyError> {
    PolicyFile::parse(text).unwrap().check(in_force).expect_err(text)
}

fn small() -> Ledger {
    Ledger::under(SMALL)
}

#[test]
fn every_error_names_its_line_and_key() {
    for &(from, to, code, line, key) in WRONG_IN_ITSELF {
        assert!(SMALL.contains(from), "{from}");
        let errors = parse_errors(&SMALL.replacen(from, to, 1));
        let found = errors
            .iter()
            .any(|error| error.code == code && error.line == line && (key.is_empty() || error.key == key));
        assert!(found, "{to}: {errors:?}");
    }
    let ledger = small();
    for &(from, to, code, line, key) in CANNOT_FOLLOW {
        assert!(SMALL.contains(from), "{from}");
        let errors = check_errors(&SMALL.replacen(from, to, 1), ledger.state.policy());
        let [error] = &errors[..] else { panic!("{to}: {errors:?}") };
        assert_eq!((error.code, error.line, error.key.as_str()), (code, line, key));
    }
}

#[test]
fn a_file_without_products_plans_or_kinds_is_none() {
    let head = "schema = 1\nname = \"small\"\nversion = 1\n";
    let only = |text: &str| {
        let errors = parse_errors(&format!("{head}{text}"));
        errors.iter().map(|error| (error.code, error.line)).collect::<Vec<_>>()
    };
    assert_eq!(only(""), [("NO_PRODUCT", 1)]);
    assert_eq!(only("[product]\n"), [("NO_PRODUCT", 4)]);
    let product = "[product.chat]\nincognito = \"deny\"\n";
    assert_eq!(only(&format!("{product}kind.input = \"never\"\n")), [("NO_PLAN", 4)]);
    assert_eq!(only(&format!("{product}plan.free = {{ mode = \"locked_out\" }}\n")), [("NO_KIND", 4)]);
    assert_eq!(only("product = 1\n"), [("WRONG_TYPE", 4)]);
}

#[test]
fn several_errors_are_told_at_once_in_the_order_of_their_lines() {
    let text = SMALL
        .replace("guard = \"5s\"", "guard = \"x\"")
        .replace("\"deny\"", "\"x\"")
        .replace("\"default_in\"", "\"x\"")
        .replace("\"trainable\"", "\"x\"");
    let errors = parse_errors(&text);
    let codes: Vec<_> = errors.iter().map(|error| (error.line, error.code)).collect();
    assert_eq!(codes, [(4, "BAD_GUARD"), (7, "BAD_INCOGNITO"), (8, "UNKNOWN_MODE"), (10, "UNKNOWN_MODE")]);
    let text =
        SMALL.replace("version = 2", "version = 1").replace("\"small\"", "\"other\"").replace("5s", "1s");
    let errors = check_errors(&text, small().state.policy());
    let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
    assert_eq!(codes, ["NAME_CHANGED", "VERSION_NOT_RISING", "GUARD_LOWERED"]);
}

#[test]
fn what_steps_up_is_declared_and_nothing_else_is() {
    let ledger = small();
    let text = SMALL
        .replace("version = 2", "version = 3")
        .replace("\"deny\"", "\"as_kind\"")
        .replace("{ mode = \"default_out\", opt_in = \"owner\" }", "{ mode = \"default_in\" }")
        .replace("kind.file", "kind.voice = \"never\"\nkind.file");
    let errors = check_errors(&text, ledger.state.policy());
    let found: Vec<_> = errors.iter().map(|error| (error.code, error.line, error.key.as_str())).collect();
    let steps = ["product.chat.incognito", "product.chat.plan.team", "product.chat.kind.voice"];
    assert_eq!(
        found,
        [(7, steps[0]), (9, steps[1]), (11, steps[2])].map(|(line, key)| ("UNDECLARED_LOOSENING", line, key))
    );
    let declared = text.replace("loosens = []", &format!("loosens = {steps:?}"));
    assert_eq!(small().at(9_000).publish(&declared), Ok(1));
    // The first version has nothing that it could step up against.
    let errors = check_errors(&SMALL.replace("[]", "[\"product.chat.plan.free\"]"), &PolicyHead::empty());
    assert_eq!(errors.iter().map(|error| error.code).collect::<Vec<_>>(), ["FALSE_LOOSENING"]);
}

#[test]
fn what_is_dropped_is_a_warning_and_its_return_an_edge() {
    let mut ledger = small();
    let without = SMALL
        .replace("version = 2", "version = 3")
        .replace("plan.team = { mode = \"default_out\", opt_in = \"owner\" }\n", "")
        .replace("kind.file = { counts_as = \"input\" }\n", "");
    let warnings = PolicyFile::parse(&without).unwrap().check(ledger.state.policy()).unwrap();
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["PLAN_DROPPED: product.chat.plan.team", "KIND_DROPPED: product.chat.kind.file"]);
    ledger.at(20_000).publish(&without).unwrap();
    let again = PolicyFile::parse(&without.replace("version = 3", "version = 4")).unwrap();
    assert_eq!(again.check(ledger.state.policy()), Ok(vec![]), "it is dropped once");
    let back = SMALL.replace("version = 2", "version = 4");
    let codes: Vec<_> =
        check_errors(&back, ledger.state.policy()).iter().map(|error| error.key.clone()).collect();
    assert_eq!(codes, ["product.chat.plan.team", "product.chat.kind.file"]);
    let team = ledger.state.policy().products[0].plan_index(&name("team")).unwrap();
    assert_eq!(ledger.state.policy().products[0].cell(team).mode, Mode::Nil, "its index is kept");
}

#[test]
fn names_run_out_dropped_ones_included() {
    let mut text = SMALL.to_owned();
    for number in 2..62 {
        text += &format!("plan.plan_{number} = {{ mode = \"locked_out\" }}\n");
    }
    let mut ledger = Ledger::under(&text);
    let over = text.clone() + "plan.one_more = { mode = \"locked_out\" }\n";
    let too_many = |text: &str, in_force: &PolicyHead| {
        check_errors(text, in_force)
            .iter()
            .any(|error| error.code == "TOO_MANY_NAMES" && error.key == "product.chat.plan")
    };
    assert!(too_many(&over, &PolicyHead::empty()));
    let swapped = over.replace("plan.team = { mode = \"default_out\", opt_in = \"owner\" }\n", "");
    assert!(PolicyFile::parse(&swapped).unwrap().check(&PolicyHead::empty()).is_ok());
    assert!(too_many(&swapped.replace("version = 2", "version = 3"), ledger.state.policy()));
    let refused = ledger.publish(&swapped.replace("version = 2", "version = 3"));
    assert!(matches!(refused, Err(Refusal::BadPolicy { .. })));
}

#[test]
fn the_seeds_policy_says_what_the_seed_says() {
    let file = PolicyFile::parse(MISTRAL).unwrap();
    assert_eq!(file.check(&PolicyHead::empty()), Ok(vec![]));
    let document = file.document();
    let products: Vec<_> = document.products.iter().map(|product| product.name.as_str()).collect();
    assert_eq!(products, ["ai_studio", "le_chat"]);
    let [studio, chat] = &document.products[..] else { panic!("{document:?}") };
    let plan = |text: &str, mode| (name(text), mode);
    assert_eq!(studio.plans, [plan("experiment", Mode::DefaultIn), plan("scale", Mode::DefaultOut)]);
    assert_eq!(
        chat.plans,
        [
            plan("enterprise", Mode::DefaultOut),
            plan("free", Mode::DefaultIn),
            plan("pro", Mode::DefaultIn),
            plan("student", Mode::DefaultIn),
            plan("teams", Mode::DefaultOut),
        ]
    );
    let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (name(kind), Class::Trainable)).collect::<Vec<_>>();
    assert_eq!(chat.kinds, kinds(&["document", "input", "output"]));
    assert_eq!(studio.kinds, kinds(&["input", "output", "related"]));
    assert_eq!([chat.incognito, studio.incognito], [Class::Never; 2]);
}

#[test]
fn other_providers_rules_are_other_files() {
    let text = r#"
schema = 1
name = "another"
version = 20260101
guard = "500ms"
[product.chat]
incognito = "as_kind"
plan.personal = { mode = "default_in" }
plan.team = { mode = "locked_out" }
plan.zero_retention = { mode = "locked_out" }
kind.turn = "trainable"
kind.connector = "never"
[product.chat_feedback]
incognito = "deny"
plan.personal = { mode = "default_in" }
plan.team = { mode = "default_in" }
kind.rated_turn = "trainable"
"#;
    let file = PolicyFile::parse(text).unwrap();
    assert_eq!(file.check(&PolicyHead::empty()), Ok(vec![]));
    assert_eq!(file.document().guard.millis(), 500);
}

/// Every unit as deep as it goes, on a stack that a parser without a bound would exhaust.
#[test]
fn no_text_nests_deeper_than_the_stack() {
    const STACK: usize = 512 * 1024;
    let dotted = vec!["a"; 79].join(".");
    let tables = format!("schema = 1\n{}1{}", format!("{dotted} = {{").repeat(79), "}".repeat(79));
    let tables = tables.replace("{1}", &format!("{{{dotted} = 1}}"));
    let units =
        ["[", "[[", "{", "a.", "a = [", "a = {", "a = {a.a.a = {", "\"a\" . 'a' . ", "[a.a]\na.a = {"];
    let texts = units.iter().flat_map(|unit| [unit.repeat(79), unit.repeat(10_000)]).chain([tables]);
    for text in texts {
        let reading =
            std::thread::Builder::new().stack_size(STACK).spawn(move || PolicyFile::parse(&text).is_err());
        assert!(reading.unwrap().join().unwrap());
    }
    let errors = parse_errors(&format!("schema = 1\nproduct = {}{}", "{ p = ".repeat(20), "}".repeat(20)));
    assert_eq!((errors.len(), errors[0].code, errors[0].line), (1, "NOT_TOML", 2), "{errors:?}");
}

/// What is wrong is shown by its beginning: a long key stands before each of its many children.
#[test]
fn errors_stay_as_short_as_the_text() {
    let long = "x".repeat(20_000);
    let children: String = (0..1_000).map(|i| format!("child_{i} = 1\n")).collect();
    let texts = [
        SMALL.replace("name = \"small\"", &format!("name = \"{long}\"")),
        SMALL.replace("guard = \"5s\"", &format!("guard = \"{long}\"")),
        SMALL.replace("counts_as = \"input\"", &format!("counts_as = \"{long}\"")),
        SMALL.replace("loosens = []", &format!("loosens = [\"{long}\", \"{long}\"]")),
        format!("{SMALL}\n[product.{long}]\n{children}"),
    ];
    for text in texts {
        for error in parse_errors(&text) {
            assert!(error.key.len() < 200 && error.message.len() < 200, "{error:?}");
        }
    }
}

#[test]
fn every_code_has_a_case() {
    let cases = WRONG_IN_ITSELF.iter().chain(CANNOT_FOLLOW).map(|case| case.2);
    let elsewhere = ["NO_PRODUCT", "NO_PLAN", "NO_KIND", "TOO_MANY_NAMES", "UNDECLARED_LOOSENING"];
    let shown: Vec<_> = cases.chain(elsewhere).collect();
    for code in CODES {
        assert!(shown.contains(&code), "{code}");
    }
}

proptest! {
    #![proptest_config(crate::ledger::seeded())]

    /// Any text is a policy or has errors with lines in it; and what is let through can be published.
    #[test]
    fn no_text_stops_the_reader(cut in any::<prop::sample::Index>(), length in 0usize..30, text in "[a-z_.= \\[\\]{}\"0-9\n#é]{0,12}") {
        let mut edited = MISTRAL.to_owned();
        let start = edited.floor_char_boundary(cut.index(edited.len()));
        let end = edited.ceil_char_boundary((start + length).min(edited.len()));
        edited.replace_range(start..end, &text);
        let lines = u32::try_from(edited.lines().count()).unwrap() + 1;
        match PolicyFile::parse(&edited) {
            Ok(file) => if file.check(&PolicyHead::empty()).is_ok() {
                prop_assert_eq!(Ledger::empty().publish(&edited), Ok(1));
            },
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                prop_assert!(errors.iter().all(|error| (1..=lines).contains(&error.line)), "{:?}", errors);
            }
        }
    }
}
