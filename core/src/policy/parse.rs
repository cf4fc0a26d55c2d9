//! A TOML text to a [`PolicyFile`], or to every error in it, each with line and key.
//!
//! An absent key is judged as a wrong value of that key: no `mode` is UNKNOWN_MODE, no `incognito` BAD_INCOGNITO.
//! Only `guard` (5 s) and `loosens` (nothing) may be left out. What is not TOML at all is NOT_TOML, and so is what
//! nests too deep to be parsed; a key that TOML refuses the second time is DUPLICATE_NAME.
//!
//! Whatever an error shows of the text is cut: errors are many times as long as the text otherwise.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Class, Document, Guard, Mode, ProductDocument, depth};
use crate::refusal::PolicyError;
use crate::words::Name;

/// How many characters an error shows of one key or value. No name has so many.
const SHOWN_MAX: usize = 64;

/// A policy file that is whole in itself. [`PolicyFile::check`] holds it against the policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    document: Document,
    pub(super) loosens: BTreeMap<String, u32>,
    pub(super) lines: BTreeMap<String, u32>,
}

impl PolicyFile {
    /// Reads a file. Errors come in the order of their lines.
    pub fn parse(text: &str) -> Result<PolicyFile, Vec<PolicyError>> {
        let newlines =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        let mut reading = Reading { text, newlines, errors: Vec::new(), lines: BTreeMap::new() };
        if let Some(offset) = depth::too_deep(text) {
            let line = reading.line(offset);
            reading.error("NOT_TOML", line, "", "nests deeper than any policy file");
            return Err(reading.finish());
        }
        let (root, broken) = DeTable::parse_recoverable(text);
        if !broken.is_empty() {
            for error in &broken {
                let code =
                    if error.message().contains("duplicate key") { "DUPLICATE_NAME" } else { "NOT_TOML" };
                let span = error.span().unwrap_or(0..0);
                let there = reading.text.get(span.clone()).unwrap_or_default();
                // It may be the rest of the file.
                let key = shown(there.lines().next().unwrap_or_default());
                reading.error(code, reading.line(span.start), &key, error.message());
            }
            return Err(reading.finish());
        }
        let file = reading.file(root.get_ref());
        match file {
            Some(file) if reading.errors.is_empty() => Ok(PolicyFile { lines: reading.lines, ..file }),
            Some(_) | None => Err(reading.finish()),
        }
    }

    /// The policy that it says.
    pub fn document(&self) -> &Document {
        &self.document
    }
}

/// The beginning of a text that may be as long as the file.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

type Value<'t> = Spanned<DeValue<'t>>;

/// A kind as the file has it.
enum KindRule<'v> {
    Class(Class),
    CountsAs(&'v str),
}

struct Reading<'t> {
    text: &'t str,
    newlines: Vec<usize>,
    errors: Vec<PolicyError>,
    lines: BTreeMap<String, u32>,
}

impl<'t> Reading<'t> {
    fn finish(mut self) -> Vec<PolicyError> {
        self.errors.sort_by_key(|error| error.line);
        self.errors
    }

    fn line(&self, offset: usize) -> u32 {
        let line = self.newlines.partition_point(|newline| *newline < offset) + 1;
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn error(&mut self, code: &'static str, line: u32, key: &str, message: &str) {
        self.errors.push(PolicyError { code, line, key: key.to_owned(), message: message.to_owned() });
    }

    fn error_at(&mut self, code: &'static str, key: &str, message: &str) {
        let line = self.lines.get(key).copied().unwrap_or(1);
        self.error(code, line, key, message);
    }

    /// The entries of a table with their keys' lines noted; every key that `known` refuses is an error.
    fn entries<'v>(
        &mut self,
        path: &str,
        table: &'v DeTable<'t>,
        known: impl Fn(&str) -> bool,
    ) -> Vec<(&'v str, String, &'v Value<'t>)> {
        let mut entries = Vec::new();
        for (name, value) in table {
            let text: &'v str = name.get_ref();
            let key = if path.is_empty() { shown(text) } else { format!("{path}.{}", shown(text)) };
            self.lines.insert(key.clone(), self.line(name.span().start));
            if known(text) {
                entries.push((text, key, value));
            } else {
                self.error_at("UNKNOWN_KEY", &key, "is not a key of a policy file");
            }
        }
        entries
    }

    fn string<'v>(&mut self, key: &str, value: &'v Value<'t>) -> Option<&'v str> {
        self.typed(key, value, value.get_ref().as_str(), "a string")
    }

    fn table<'v>(&mut self, key: &str, value: &'v Value<'t>) -> Option<&'v DeTable<'t>> {
        self.typed(key, value, value.get_ref().as_table(), "a table")
    }

    fn integer(&mut self, key: &str, value: &Value<'t>) -> Option<i64> {
        let integer = value.get_ref().as_integer();
        let integer = integer.and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
        self.typed(key, value, integer, "an integer of 64 bits")
    }

    fn typed<T>(&mut self, key: &str, value: &Value<'t>, found: Option<T>, wanted: &str) -> Option<T> {
        if found.is_none() {
            let message = format!("is of type {}, must be {wanted}", value.get_ref().type_str());
            self.error_at("WRONG_TYPE", key, &message);
        }
        found
    }

    fn name(&mut self, key: &str, text: &str) -> Option<Name> {
        let name = Name::new(text);
        if name.is_err() {
            self.error_at(
                "BAD_NAME",
                key,
                &format!("{:?} is no name: names are [a-z][a-z0-9_]{{0,31}}", shown(text)),
            );
        }
        name.ok()
    }

    fn file(&mut self, root: &DeTable<'t>) -> Option<PolicyFile> {
        const KEYS: [&str; 6] = ["schema", "name", "version", "guard", "loosens", "product"];
        // Another schema has other keys: what else is wrong could not be said.
        self.schema(root)?;
        let entries = self.entries("", root, |key| KEYS.contains(&key));
        let find = |key| entries.iter().find(|(name, ..)| *name == key).map(|(_, _, value)| *value);

        let name = match find("name") {
            Some(value) => self.string("name", value).and_then(|text| self.name("name", text)),
            None => self.name("name", ""),
        };
        let version = match find("version") {
            Some(value) => self.integer("version", value),
            None => Some(0),
        };
        let version = version.and_then(|version| {
            let version = u64::try_from(version).ok().filter(|version| *version >= 1);
            if version.is_none() {
                self.error_at("VERSION_NOT_RISING", "version", "must be there and at least 1");
            }
            version
        });
        let guard = find("guard").map_or(Some(Guard::DEFAULT), |value| {
            let text = self.string("guard", value)?;
            Guard::parse(text)
                .map_err(|bad| self.error_at("BAD_GUARD", "guard", &format!("{:?} {bad}", shown(text))))
                .ok()
        });
        let loosens = find("loosens").map_or(Some(BTreeMap::new()), |value| self.loosens(value));
        let products = match find("product") {
            Some(value) => self.table("product", value).map(|table| self.products(table)),
            None => Some(Vec::new()),
        };
        if products.as_ref().is_some_and(Vec::is_empty)
            && !self.lines.keys().any(|key| key.starts_with("product."))
        {
            self.error_at("NO_PRODUCT", "product", "there must be at least one product");
        }
        Some(PolicyFile {
            document: Document { name: name?, version: version?, guard: guard?, products: products? },
            loosens: loosens?,
            lines: BTreeMap::new(),
        })
    }

    fn schema(&mut self, root: &DeTable<'t>) -> Option<()> {
        let (mut line, mut schema) = (1, None);
        for (name, value) in root {
            if name.get_ref() == "schema" {
                line = self.line(name.span().start);
                self.lines.insert("schema".to_owned(), line);
                schema = Some(self.integer("schema", value)?);
            }
        }
        if schema != Some(1) {
            self.error("UNSUPPORTED_SCHEMA", line, "schema", "must be there and 1");
            return None;
        }
        Some(())
    }

    fn loosens(&mut self, value: &Value<'t>) -> Option<BTreeMap<String, u32>> {
        let items = self.typed("loosens", value, value.get_ref().as_array(), "an array of strings")?;
        let mut loosens = BTreeMap::new();
        for item in items {
            let line = self.line(item.span().start);
            let Some(text) = item.get_ref().as_str() else {
                self.error("WRONG_TYPE", line, "loosens", "must hold strings only");
                continue;
            };
            if loosens.insert(text.to_owned(), line).is_some() {
                self.error(
                    "DUPLICATE_NAME",
                    line,
                    "loosens",
                    &format!("{:?} stands there twice", shown(text)),
                );
            }
        }
        Some(loosens)
    }

    fn products(&mut self, table: &DeTable<'t>) -> Vec<ProductDocument> {
        let mut products = Vec::new();
        for (text, key, value) in self.entries("product", table, |_| true) {
            let name = self.name(&key, text);
            let product = self.table(&key, value).and_then(|table| self.product(&key, table));
            if let (Some(name), Some((incognito, plans, kinds))) = (name, product) {
                products.push(ProductDocument { name, incognito, plans, kinds });
            }
        }
        products.sort_by(|a, b| a.name.cmp(&b.name));
        products
    }

    #[expect(clippy::type_complexity, reason = "the three parts of a product, named where they are used")]
    fn product(
        &mut self,
        path: &str,
        table: &DeTable<'t>,
    ) -> Option<(Class, Vec<(Name, Mode)>, Vec<(Name, Class)>)> {
        let entries = self.entries(path, table, |key| ["incognito", "plan", "kind"].contains(&key));
        let find = |key| entries.iter().find(|(name, ..)| *name == key);

        let incognito = match find("incognito") {
            Some((_, key, value)) => self.string(key, value).and_then(|text| match text {
                "deny" => Some(Class::Never),
                "as_kind" => Some(Class::Trainable),
                _ => {
                    self.error_at(
                        "BAD_INCOGNITO",
                        key,
                        &format!("{:?} is neither deny nor as_kind", shown(text)),
                    );
                    None
                }
            }),
            None => {
                self.error_at("BAD_INCOGNITO", path, "must say incognito: deny or as_kind");
                None
            }
        };
        let plans = match find("plan") {
            Some((_, key, value)) => self.table(key, value).map(|table| self.plans(key, table)),
            None => Some((Vec::new(), true)),
        };
        let kinds = match find("kind") {
            Some((_, key, value)) => self.table(key, value).map(|table| self.kinds(key, table)),
            None => Some((Vec::new(), true)),
        };
        let (plans, no_plan) = plans.unwrap_or_default();
        let (kinds, no_kind) = kinds.unwrap_or_default();
        if no_plan {
            self.error_at("NO_PLAN", path, "must have at least one plan");
        }
        if no_kind {
            self.error_at("NO_KIND", path, "must have at least one kind");
        }
        Some((incognito?, plans, kinds))
    }

    /// The plans, and whether there was not even one to read.
    fn plans(&mut self, path: &str, table: &DeTable<'t>) -> (Vec<(Name, Mode)>, bool) {
        let mut plans = Vec::new();
        for (text, key, value) in self.entries(path, table, |_| true) {
            let name = self.name(&key, text);
            let mode = self.table(&key, value).and_then(|table| self.plan(&key, table));
            plans.extend(name.zip(mode));
        }
        plans.sort();
        (plans, table.is_empty())
    }

    fn plan(&mut self, path: &str, table: &DeTable<'t>) -> Option<Mode> {
        let entries = self.entries(path, table, |key| ["mode", "opt_in"].contains(&key));
        let find = |key| entries.iter().find(|(name, ..)| *name == key);

        let mode = match find("mode") {
            Some((_, key, value)) => match self.string(key, value)? {
                "locked_out" => Some(Mode::LockedOut),
                "default_out" => Some(Mode::DefaultOut),
                "default_in" => Some(Mode::DefaultIn),
                text => {
                    let message = format!("{:?} is none of locked_out, default_out, default_in", shown(text));
                    self.error_at("UNKNOWN_MODE", key, &message);
                    None
                }
            },
            None => {
                self.error_at("UNKNOWN_MODE", path, "must say mode: locked_out, default_out or default_in");
                None
            }
        };
        let opt_in = match find("opt_in") {
            Some((_, key, value)) => Some((key.as_str(), self.string(key, value)?)),
            None => None,
        };
        match (mode?, opt_in) {
            (Mode::DefaultOut, Some((_, "owner"))) => Some(Mode::DefaultOut),
            (mode @ (Mode::Nil | Mode::LockedOut | Mode::DefaultIn), None) => Some(mode),
            (mode, opt_in) => {
                let key = opt_in.map_or(path, |(key, _)| key);
                let message =
                    format!("opt_in = \"owner\" belongs to default_out and to nothing else; this is {mode}");
                self.error_at("OPT_IN_MISMATCH", key, &message);
                None
            }
        }
    }

    /// The kinds, each `counts_as` resolved, and whether there was not even one to read.
    fn kinds(&mut self, path: &str, table: &DeTable<'t>) -> (Vec<(Name, Class)>, bool) {
        let mut rules = Vec::new();
        for (text, key, value) in self.entries(path, table, |_| true) {
            let name = self.name(&key, text);
            let rule = self.kind(&key, value);
            rules.extend(rule.map(|rule| (text, key, name, rule)));
        }
        let mut kinds = Vec::new();
        for (_, key, name, rule) in &rules {
            let class = match rule {
                KindRule::Class(class) => Some(*class),
                KindRule::CountsAs(target) => {
                    match rules.iter().find(|(text, ..)| text == target).map(|(.., rule)| rule) {
                        Some(KindRule::Class(class)) => Some(*class),
                        Some(KindRule::CountsAs(_)) => {
                            let message =
                                format!("counts as {}, which itself counts as another kind", shown(target));
                            self.error_at("COUNTS_AS_CHAIN", key, &message);
                            None
                        }
                        // A target that is there and wrong has its own error.
                        None if table.contains_key(*target) => None,
                        None => {
                            let message =
                                format!("counts as {:?}, which is no kind of this product", shown(target));
                            self.error_at("COUNTS_AS_UNKNOWN", key, &message);
                            None
                        }
                    }
                }
            };
            kinds.extend(name.clone().zip(class));
        }
        kinds.sort();
        (kinds, table.is_empty())
    }

    fn kind<'v>(&mut self, path: &str, value: &'v Value<'t>) -> Option<KindRule<'v>> {
        match value.get_ref() {
            DeValue::String(text) => match &**text {
                "trainable" => Some(KindRule::Class(Class::Trainable)),
                "never" => Some(KindRule::Class(Class::Never)),
                _ => {
                    let message = format!("{:?} is neither trainable nor never", shown(text));
                    self.error_at("UNKNOWN_MODE", path, &message);
                    None
                }
            },
            DeValue::Table(table) => {
                let entries = self.entries(path, table, |key| key == "counts_as");
                let Some((_, key, value)) = entries.first() else {
                    self.error_at("COUNTS_AS_UNKNOWN", path, "must say counts_as, and which kind");
                    return None;
                };
                self.string(key, value).map(KindRule::CountsAs)
            }
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => self.typed(path, value, None, "a string or a table"),
        }
    }
}
