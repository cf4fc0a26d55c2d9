//! Chance that can be played again: a trial draws everything from one seed, and prints it.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `CONSENT_TRIAL_SEED`, or of a seed drawn from the clock; printed either way.
    pub(crate) fn announced() -> anyhow::Result<Random> {
        let seed = match std::env::var("CONSENT_TRIAL_SEED") {
            Ok(text) => text.parse()?,
            Err(_) => consent::clock::now().boot,
        };
        println!("        seed {seed} (play it again with CONSENT_TRIAL_SEED={seed})");
        Ok(Random(seed))
    }

    /// The sequence of `seed`.
    pub(crate) const fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An index of a list with `len` elements, which is not empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        (self.next() % (len as u64)) as usize
    }
}
