//! The policy's head: every product, plan and kind that was ever named, what is in force, and since when.
//!
//! Names keep their indexes for good. What a newer file drops becomes NIL and stays, so that its return is an edge.

use crate::policy::{Class, Document, Guard, Mode};
use crate::words::{Choice, Name, PlanIndex, ProductIndex, Revision, Seconds};

/// The most names of one kind: products, a product's plans, a product's kinds. Dropped ones count.
pub const NAMES_MAX: usize = 62;

/// The policy as folded. There is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyHead {
    /// The revision of the last event that touched it; zero while nothing was ever published.
    pub rev: Revision,
    /// The policy's name, for good; none while nothing was ever published.
    pub name: Option<Name>,
    /// The version in force; 0 while there is none.
    pub version: u64,
    /// Only ever raised: lowering it would turn past DENYs into ALLOWs.
    pub guard: Guard,
    /// By [`ProductIndex`], dropped ones included.
    pub products: Vec<ProductHead>,
}

/// One product of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductHead {
    /// Its name.
    pub name: Name,
    /// The gate for incognito artifacts: TRAINABLE is "as their kind". NIL: the product was dropped.
    pub incognito: Gate,
    /// By [`PlanIndex`] less one.
    pub plans: Vec<(Name, Cell)>,
    /// By first mention.
    pub kinds: Vec<(Name, Gate)>,
}

/// An instant at which something stepped up, and the revision of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// When.
    pub since: Seconds,
    /// Its revision: an edge counts for a party whose head is older.
    pub rev: Revision,
}

impl Edge {
    /// It never did.
    pub const NEVER: Edge = Edge { since: Seconds::ZERO, rev: Revision::ZERO };
}

/// A plan's rule. Two edges, because two kinds of owner wait for different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// What is in force.
    pub mode: Mode,
    /// The last step from below `default_out` to it or above: frees an owner who is IN.
    pub open: Edge,
    /// The last step from below `default_in` to it: frees an owner who is UNSET.
    pub default: Edge,
}

impl Cell {
    /// A plan that no policy ever gave a mode.
    pub const NIL: Cell = Cell { mode: Mode::Nil, open: Edge::NEVER, default: Edge::NEVER };

    /// The edge that an owner of this choice waits for.
    #[inline]
    pub const fn edge(&self, choice: Option<Choice>) -> Edge {
        match choice {
            Some(Choice::In) => self.open,
            Some(Choice::Out) | None => self.default,
        }
    }

    fn step(&mut self, mode: Mode, edge: Edge) {
        let crosses = |height| self.mode < height && mode >= height;
        let (open, default) = (crosses(Mode::DefaultOut), crosses(Mode::DefaultIn));
        if open {
            self.open = edge;
        }
        if default {
            self.default = edge;
        }
        self.mode = mode;
    }
}

/// What lets a kind, or incognito artifacts, through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// What is in force.
    pub class: Class,
    /// The last step to TRAINABLE.
    pub since: Seconds,
}

impl Gate {
    /// A gate that no policy ever had.
    pub const NIL: Gate = Gate { class: Class::Nil, since: Seconds::ZERO };

    fn step(&mut self, class: Class, edge: Edge) {
        if self.class < Class::Trainable && class == Class::Trainable {
            self.since = edge.since;
        }
        self.class = class;
    }
}

impl PolicyHead {
    /// Before the first publication: no product, so nothing is allowed. Its guard is the least there is: a larger
    /// one would call DENYs final that a first policy with a smaller guard turns to ALLOW.
    pub const fn empty() -> PolicyHead {
        PolicyHead { rev: Revision::ZERO, name: None, version: 0, guard: Guard::ZERO, products: Vec::new() }
    }

    /// The index of a product that was ever named.
    pub fn product_index(&self, name: &str) -> Option<ProductIndex> {
        let index = self.products.iter().position(|product| product.name.as_str() == name)?;
        u8::try_from(index).ok().map(ProductIndex)
    }

    /// The product with this index.
    pub fn product(&self, index: ProductIndex) -> Option<&ProductHead> {
        self.products.get(usize::from(index.0))
    }

    /// Every product's index, in order.
    pub fn indexes(&self) -> impl Iterator<Item = (ProductIndex, &ProductHead)> {
        (0u8..).map(ProductIndex).zip(&self.products)
    }

    /// Puts a document in force. Tightening is immediate; what steps up gets `edge` on each edge that it crosses.
    pub(crate) fn publish(&mut self, document: &Document, edge: Edge) {
        self.guard = self.guard.max(document.guard);
        self.name = Some(document.name.clone());
        self.version = document.version;
        self.rev = edge.rev;
        for new in &document.products {
            if self.product_index(new.name.as_str()).is_none() {
                self.products.push(ProductHead::new(new.name.clone()));
            }
        }
        for product in &mut self.products {
            let new = document.products.iter().find(|new| new.name == product.name);
            product.incognito.step(new.map_or(Class::Nil, |new| new.incognito), edge);
            let (plans, kinds) = new.map_or((&[][..], &[][..]), |new| (&new.plans, &new.kinds));
            merge(&mut product.plans, plans, Cell::NIL, |cell, mode| {
                cell.step(mode.unwrap_or(Mode::Nil), edge);
            });
            merge(&mut product.kinds, kinds, Gate::NIL, |gate, class| {
                gate.step(class.unwrap_or(Class::Nil), edge);
            });
        }
    }
}

/// Steps everything ever named to what the new list says of it, and takes in what the list names first.
fn merge<H: Copy, V: Copy>(
    known: &mut Vec<(Name, H)>,
    new: &[(Name, V)],
    nil: H,
    mut step: impl FnMut(&mut H, Option<V>),
) {
    for (name, _) in new {
        if !known.iter().any(|(have, _)| have == name) {
            known.push((name.clone(), nil));
        }
    }
    for (name, head) in known {
        step(head, new.iter().find(|(have, _)| have == name).map(|(_, value)| *value));
    }
}

impl ProductHead {
    pub(crate) const fn new(name: Name) -> ProductHead {
        ProductHead { name, incognito: Gate::NIL, plans: Vec::new(), kinds: Vec::new() }
    }

    /// Does the policy in force have it?
    #[inline]
    pub fn is_in_force(&self) -> bool {
        self.incognito.class != Class::Nil
    }

    /// The cell of a plan; NIL for one that never got an index of its own.
    #[inline]
    pub fn cell(&self, plan: PlanIndex) -> Cell {
        self.plans.get(usize::from(plan.get()) - 1).map_or(Cell::NIL, |(_, cell)| *cell)
    }

    /// The index of a plan that was ever named.
    pub fn plan_index(&self, name: &Name) -> Option<PlanIndex> {
        let index = self.plans.iter().position(|(have, _)| have == name)?;
        u8::try_from(index + 1).ok().and_then(PlanIndex::new)
    }

    /// The index that the next plan gets, if one is left.
    pub fn next_plan(&self) -> Option<PlanIndex> {
        let index = u8::try_from(self.plans.len() + 1).ok().and_then(PlanIndex::new)?;
        (index <= PlanIndex::MAX).then_some(index)
    }

    /// The name of a plan.
    pub fn plan_name(&self, plan: PlanIndex) -> Option<&Name> {
        self.plans.get(usize::from(plan.get()) - 1).map(|(name, _)| name)
    }

    /// The gate of a kind; none for one that was never named.
    pub fn gate(&self, kind: &str) -> Option<Gate> {
        self.kinds.iter().find(|(name, _)| name.as_str() == kind).map(|(_, gate)| *gate)
    }
}
