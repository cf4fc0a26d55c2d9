//! A seal on a place: that somebody who knew the deployment's secret wrote it down.
//!
//! A sidecar that starts with a durable copy names a place that it does not remember, and that anybody who may write
//! to the copy could have made up. A place that the ledger has not is time travel and puts the ledger under HOLD
//! (R13), so an authority hears only of places that are remembered or sealed. The sidecar cannot judge the seal
//! itself before its first welcome: the secret is in no copy.

use super::message::Place;
use crate::words::IdKey;

/// A keyed hash of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal(blake3::Hash);

impl Seal {
    /// The seal on `place`, under a key drawn from the secret under which ids are hashed.
    pub fn of(secret: &IdKey, place: &Place) -> Seal {
        let key = blake3::derive_key("consent v1 seal on a place", secret.bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(place.epoch.bytes()).update(&place.revision.get().to_be_bytes());
        hasher.update(place.chain.bytes()).update(place.digest.bytes());
        Seal(hasher.finalize())
    }

    /// The seal with these bytes, whatever it is on.
    pub const fn new(bytes: [u8; 32]) -> Seal {
        Seal(blake3::Hash::from_bytes(bytes))
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use crate::digest::Digest;
    use crate::words::{Epoch, Revision};

    #[test]
    fn it_is_on_one_place_under_one_secret() {
        let secret = IdKey::new([1; 16]);
        let place = Place {
            epoch: Epoch::new([2; 16]),
            revision: Revision::ZERO,
            chain: Chain::EMPTY,
            digest: Digest::EMPTY,
        };
        let seal = Seal::of(&secret, &place);
        assert_eq!(seal, Seal::new(*seal.bytes()));
        assert_ne!(seal, Seal::of(&IdKey::new([9; 16]), &place));
        let others = [
            Place { epoch: Epoch::new([9; 16]), ..place },
            Place { revision: Revision::new(9).unwrap(), ..place },
            Place { chain: Chain::new([9; 32]), ..place },
            Place { digest: Digest::new([9; 32]), ..place },
        ];
        assert!(others.iter().all(|other| Seal::of(&secret, other) != seal));
    }
}
