//! What the numbers of a history are called in the production code, and back.

use consent_core::decision::Question;
use consent_core::event::{Keys, PartyOf};
use consent_core::policy::{Class, Document, Guard, Mode, PolicyFile, ProductDocument};
use consent_core::words::{AccountKey, ArtifactKey, Name, OrganizationKey, Party, Timestamp};

use crate::history::{Ask, Kind, ProductRules, Rules, Who};

/// Not in alphabetical order: places in the file and permanent indexes differ.
pub(crate) const PRODUCTS: [&str; 2] = ["le_chat", "ai_studio"];
pub(crate) const PLANS: [&str; 4] = ["teams", "free", "pro", "elsewhere"];

pub(crate) fn account(number: usize) -> AccountKey {
    AccountKey::new([number as u8 + 1; 16])
}

pub(crate) fn organization(number: usize) -> OrganizationKey {
    OrganizationKey::new([number as u8 + 1; 16])
}

pub(crate) fn artifact(number: usize) -> ArtifactKey {
    ArtifactKey::new([number as u8 + 1; 16])
}

pub(crate) fn party(who: Who) -> PartyOf<Keys> {
    match who {
        Party::Account(number) => Party::Account(account(number)),
        Party::Organization(number) => Party::Organization(organization(number)),
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn question(ask: &Ask) -> Question<'static> {
    Question {
        account: account(ask.account),
        artifact: artifact(ask.artifact),
        product: PRODUCTS[ask.product],
        kind: match ask.kind {
            Kind::Input => "input",
            Kind::Output => "output",
            Kind::Document => "document",
        },
        collected_at: Some(Timestamp::from_millis(ask.collected_at)),
        is_incognito: ask.is_incognito,
    }
}

/// The resolved document of these rules, without the TOML: parsing would be most of a run.
pub(crate) fn document(version: u64, rules: &Rules) -> Document {
    let mut products: Vec<ProductDocument> = PRODUCTS
        .iter()
        .zip(&rules.products)
        .filter_map(|(text, product)| product.as_ref().map(|product| product_document(text, product)))
        .collect();
    products.sort_by(|a, b| a.name.cmp(&b.name));
    Document { name: name("random"), version, guard: Guard::from_millis(rules.guard).unwrap(), products }
}

fn product_document(text: &str, rules: &ProductRules) -> ProductDocument {
    let mut plans: Vec<(Name, Mode)> = PLANS
        .iter()
        .zip(rules.plans)
        .filter(|(_, mode)| *mode != Mode::Nil)
        .map(|(plan, mode)| (name(plan), mode))
        .collect();
    plans.sort();
    let kinds = [("document", rules.input), ("input", rules.input), ("output", rules.output)];
    ProductDocument {
        name: name(text),
        incognito: if rules.incognito { Class::Trainable } else { Class::Never },
        plans,
        kinds: kinds
            .into_iter()
            .filter(|(_, class)| *class != Class::Nil)
            .map(|(kind, class)| (name(kind), class))
            .collect(),
    }
}

/// The same as a file, with whatever `loosens` is given.
pub(crate) fn file(document: &Document, rules: &Rules, loosens: &[String]) -> PolicyFile {
    let mut text = format!(
        "schema = 1\nname = \"random\"\nversion = {}\nguard = \"{}\"\nloosens = {loosens:?}\n",
        document.version, document.guard
    );
    for (product, rules) in PRODUCTS.iter().zip(&rules.products) {
        let Some(rules) = rules else { continue };
        let incognito = if rules.incognito { "as_kind" } else { "deny" };
        text += &format!("[product.{product}]\nincognito = \"{incognito}\"\n");
        for (plan, mode) in PLANS.iter().zip(rules.plans).filter(|(_, mode)| *mode != Mode::Nil) {
            let opt_in = if mode == Mode::DefaultOut { ", opt_in = \"owner\"" } else { "" };
            text += &format!("plan.{plan} = {{ mode = \"{mode}\"{opt_in} }}\n");
        }
        let class = |class| if class == Class::Never { "never" } else { "trainable" };
        text += &format!("kind.output = \"{}\"\n", class(rules.output));
        if rules.input != Class::Nil {
            text += &format!("kind.input = \"{}\"\n", class(rules.input));
            text += "kind.document = { counts_as = \"input\" }\n";
        }
    }
    PolicyFile::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}
