//! A policy file against the policy in force: may it follow, and does it say what it loosens?
//!
//! `loosens` names every cell and gate that steps up against the version in force, each as the file writes it:
//! `product.le_chat.plan.free`, `product.le_chat.kind.input`, `product.le_chat.incognito`. Any step counts, from NIL
//! too: a plan, kind or product that is new, or comes back, is declared. The first version declares nothing.

use core::fmt;
use std::collections::BTreeSet;

use super::parse::shown;
use super::{Class, Mode, PolicyFile, ProductDocument};
use crate::head::{Cell, Gate, NAMES_MAX, PolicyHead, ProductHead};
use crate::refusal::PolicyError;
use crate::words::Name;

/// What the file no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// A plan: whoever is on it is denied, UNKNOWN_PLAN.
    Plan,
    /// A kind: its artifacts are denied, UNKNOWN_KIND.
    Kind,
}

/// Something that may well be meant, as it only tightens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What was dropped.
    pub dropped: Dropped,
    /// Where it was.
    pub product: Name,
    /// What it was called.
    pub name: Name,
}

impl Warning {
    /// `PLAN_DROPPED` or `KIND_DROPPED`.
    pub const fn code(&self) -> &'static str {
        match self.dropped {
            Dropped::Plan => "PLAN_DROPPED",
            Dropped::Kind => "KIND_DROPPED",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.dropped {
            Dropped::Plan => "plan",
            Dropped::Kind => "kind",
        };
        write!(f, "{}: product.{}.{list}.{}", self.code(), self.product, self.name)
    }
}

impl PolicyFile {
    /// May it follow the policy in force? Warnings, or every error.
    pub fn check(&self, in_force: &PolicyHead) -> Result<Vec<Warning>, Vec<PolicyError>> {
        let mut errors = Vec::new();
        self.check_top(in_force, &mut errors);
        self.check_names(in_force, &mut errors);
        self.check_loosens(in_force, &mut errors);
        if errors.is_empty() {
            return Ok(self.warnings(in_force));
        }
        errors.sort_by_key(|error| error.line);
        Err(errors)
    }

    fn error(&self, code: &'static str, key: &str, message: String) -> PolicyError {
        let line = self.lines.get(key).copied().unwrap_or(1);
        PolicyError { code, line, key: key.to_owned(), message }
    }

    fn check_top(&self, in_force: &PolicyHead, errors: &mut Vec<PolicyError>) {
        let (new, old) = (self.document(), in_force);
        let Some(name) = &old.name else { return };
        if new.version <= old.version {
            let message = format!("{} must be more than {}, which is in force", new.version, old.version);
            errors.push(self.error("VERSION_NOT_RISING", "version", message));
        }
        if new.name != *name {
            errors.push(self.error("NAME_CHANGED", "name", format!("{} was {name} until now", new.name)));
        }
        if new.guard < old.guard {
            let message = format!("{} is less than {}: past denials would open", new.guard, old.guard);
            errors.push(self.error("GUARD_LOWERED", "guard", message));
        }
    }

    fn check_names(&self, in_force: &PolicyHead, errors: &mut Vec<PolicyError>) {
        let mut check = |key: String, count: usize| {
            if count > NAMES_MAX {
                let message = format!("makes {count} names, dropped ones included; the most are {NAMES_MAX}");
                errors.push(self.error("TOO_MANY_NAMES", &key, message));
            }
        };
        let new = &self.document().products;
        check(
            "product".to_owned(),
            union(new.iter().map(|p| &p.name), in_force.products.iter().map(|p| &p.name)),
        );
        for product in new {
            let old = find(in_force, product);
            let plans = old.map_or(&[][..], |old| &old.plans);
            let kinds = old.map_or(&[][..], |old| &old.kinds);
            check(format!("product.{}.plan", product.name), union(names(&product.plans), names(plans)));
            check(format!("product.{}.kind", product.name), union(names(&product.kinds), names(kinds)));
        }
    }

    fn check_loosens(&self, in_force: &PolicyHead, errors: &mut Vec<PolicyError>) {
        let steps = if in_force.version == 0 { BTreeSet::new() } else { self.steps_up(in_force) };
        for (declared, line) in self.loosens.iter().filter(|(declared, _)| !steps.contains(*declared)) {
            errors.push(PolicyError {
                code: "FALSE_LOOSENING",
                line: *line,
                key: "loosens".to_owned(),
                message: format!(
                    "{:?} does not step up against version {}",
                    shown(declared),
                    in_force.version
                ),
            });
        }
        for key in steps.iter().filter(|key| !self.loosens.contains_key(*key)) {
            let message = format!("steps up against version {}: declare it in loosens", in_force.version);
            errors.push(self.error("UNDECLARED_LOOSENING", key, message));
        }
    }

    fn steps_up(&self, in_force: &PolicyHead) -> BTreeSet<String> {
        let mut steps = BTreeSet::new();
        for product in &self.document().products {
            let old = find(in_force, product);
            let path = format!("product.{}", product.name);
            if product.incognito > old.map_or(Class::Nil, |old| old.incognito.class) {
                steps.insert(format!("{path}.incognito"));
            }
            for (name, mode) in &product.plans {
                let cell = old.and_then(|old| old.plan_index(name).map(|plan| old.cell(plan)));
                if *mode > cell.unwrap_or(Cell::NIL).mode {
                    steps.insert(format!("{path}.plan.{name}"));
                }
            }
            for (name, class) in &product.kinds {
                let gate = old.and_then(|old| old.gate(name.as_str()));
                if *class > gate.unwrap_or(Gate::NIL).class {
                    steps.insert(format!("{path}.kind.{name}"));
                }
            }
        }
        steps
    }

    fn warnings(&self, in_force: &PolicyHead) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for old in &in_force.products {
            let new = self.document().products.iter().find(|new| new.name == old.name);
            let has_plan = |name| new.is_some_and(|new| names(&new.plans).any(|have| have == name));
            let has_kind = |name| new.is_some_and(|new| names(&new.kinds).any(|have| have == name));
            let plans = old.plans.iter().filter(|(name, cell)| cell.mode != Mode::Nil && !has_plan(name));
            let kinds = old.kinds.iter().filter(|(name, gate)| gate.class != Class::Nil && !has_kind(name));
            let mut warn = |dropped, name: &Name| {
                warnings.push(Warning { dropped, product: old.name.clone(), name: name.clone() });
            };
            plans.for_each(|(name, _)| warn(Dropped::Plan, name));
            kinds.for_each(|(name, _)| warn(Dropped::Kind, name));
        }
        warnings
    }
}

fn find<'h>(in_force: &'h PolicyHead, product: &ProductDocument) -> Option<&'h ProductHead> {
    in_force.products.iter().find(|old| old.name == product.name)
}

fn names<T>(list: &[(Name, T)]) -> impl Iterator<Item = &Name> {
    list.iter().map(|(name, _)| name)
}

fn union<'a>(new: impl Iterator<Item = &'a Name>, old: impl Iterator<Item = &'a Name>) -> usize {
    new.chain(old).collect::<BTreeSet<_>>().len()
}
