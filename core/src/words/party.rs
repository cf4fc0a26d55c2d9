//! Whose layer it is, what they chose, and what stands against an account.
//!
//! Zero of nothing here allows: UNSET is no zero byte, and a restriction only ever takes away.

/// Who may hold a plan and make a choice. Both are bound by their own; with both, both must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party<A, O> {
    /// Whose data it is.
    Account(A),
    /// What an account may belong to.
    Organization(O),
}

/// A party's explicit choice for a product. UNSET is `Option::None`: nobody can choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// Data may be used, as far as the plan leaves it to this party.
    In,
    /// Data must not be used, whatever else says so.
    Out,
}

/// A block on an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Restriction {
    /// The person is a child. Sticky: data of that time stays denied after the birthday.
    Minor,
    /// The law of the place. Sticky.
    Region,
    /// Frozen for a court. Standing: its end brings back all that consent allows.
    LegalHold,
    /// Suspended. Standing.
    Suspended,
}

impl Restriction {
    /// All four.
    pub const ALL: [Restriction; 4] =
        [Restriction::Minor, Restriction::Region, Restriction::LegalHold, Restriction::Suspended];

    /// Does it mark its time, so that lifting it is an edge (rule.md section 3)?
    pub const fn is_sticky(self) -> bool {
        match self {
            Restriction::Minor | Restriction::Region => true,
            Restriction::LegalHold | Restriction::Suspended => false,
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Restriction::Minor => 1,
            Restriction::Region => 2,
            Restriction::LegalHold => 4,
            Restriction::Suspended => 8,
        }
    }
}

/// A set of restrictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Restrictions(u8);

impl Restrictions {
    /// None of them.
    pub const NONE: Restrictions = Restrictions(0);

    /// The set with these bits, if each of them is a restriction that this version knows.
    pub const fn from_bits(bits: u8) -> Option<Restrictions> {
        if bits < 16 { Some(Restrictions(bits)) } else { None }
    }

    /// Its bits: MINOR 1, REGION 2, LEGAL_HOLD 4, SUSPENDED 8.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Is it in the set?
    pub const fn has(self, restriction: Restriction) -> bool {
        self.0 & restriction.bit() != 0
    }

    /// Is a sticky one in the set?
    pub fn any_sticky(self) -> bool {
        Restriction::ALL.into_iter().any(|restriction| restriction.is_sticky() && self.has(restriction))
    }

    /// The set with it.
    #[must_use]
    pub const fn with(self, restriction: Restriction) -> Restrictions {
        Restrictions(self.0 | restriction.bit())
    }

    /// The set without it.
    #[must_use]
    pub const fn without(self, restriction: Restriction) -> Restrictions {
        Restrictions(self.0 & !restriction.bit())
    }
}
