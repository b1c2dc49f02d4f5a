//! Which visitors were counted under which values, in a minute.
//!
//! A visitor's first value of each dimension lies beside the visitor: most have no other within the minute, so an event
//! costs one look into a large table, not one for each dimension. Further values lie in a set of hashes.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use footfall_schemas::{Dimension, VisitorId};
use serde::{Deserialize, Serialize};

use crate::{
    sample::{IdHash, mixed},
    values::ValueId,
};

/// Dimensions of events but [`Dimension::Total`], which is the first of all.
const KEPT: usize = Dimension::OF_EVENTS.len() - 1;
/// No value yet. No number of a value: they are given from 0 on.
const NONE: ValueId = ValueId::MAX;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pairs {
    firsts: HashMap<u64, [ValueId; KEPT], IdHash>,
    others: HashSet<u64, IdHash>,
    known: usize,
}

/// The pairs of one visitor.
pub(crate) struct OfVisitor<'a> {
    visitor: VisitorId,
    pub(crate) is_new: bool,
    firsts: &'a mut [ValueId; KEPT],
    others: &'a mut HashSet<u64, IdHash>,
    known: &'a mut usize,
}

impl Pairs {
    pub(crate) fn of(&mut self, visitor: VisitorId) -> OfVisitor<'_> {
        let Self { firsts, others, known } = self;
        let (firsts, is_new) = match firsts.entry(visitor.0) {
            Entry::Occupied(firsts) => (firsts.into_mut(), false),
            Entry::Vacant(place) => (place.insert([NONE; KEPT]), true),
        };
        OfVisitor { visitor, is_new, firsts, others, known }
    }

    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.known
    }

    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        // Tables are between 7/16 and 7/8 full; a slot has a byte of its own besides.
        let slots = |filled: usize, slot: usize| filled * (slot + 1) * 3 / 2;
        slots(self.firsts.len(), size_of::<(u64, [ValueId; KEPT])>())
            + slots(self.others.len(), size_of::<u64>())
    }
}

impl OfVisitor<'_> {
    /// Notes the pair; `true` when it was not known.
    pub(crate) fn note(&mut self, dimension: Dimension, id: ValueId) -> bool {
        let first = &mut self.firsts[dimension as usize - 1];
        let is_new = match *first {
            NONE => {
                *first = id;
                true
            }
            first => first != id && self.others.insert(pair(self.visitor, id)),
        };
        *self.known += usize::from(is_new);
        is_new
    }
}

/// 64 bits of hash: among 400,000 pairs, two are the same once in 200 million minutes.
fn pair(visitor: VisitorId, id: ValueId) -> u64 {
    mixed(visitor.0 ^ u64::from(id).wrapping_mul(0xff51_afd7_ed55_8ccd))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pair_is_new_once(noted in prop::collection::vec((0..4u64, 1..=KEPT, 0..4u32), 0..200)) {
            let (mut pairs, mut expected) = (Pairs::default(), BTreeSet::new());
            let mut visitors = BTreeSet::new();
            for (visitor, dimension, value) in noted {
                // As a site gives them: no two dimensions have a number in common.
                let id = value * 10 + dimension as u32;
                let mut of = pairs.of(VisitorId(visitor));
                prop_assert_eq!(of.is_new, visitors.insert(visitor));
                prop_assert_eq!(of.note(Dimension::ALL[dimension], id), expected.insert((visitor, id)));
            }
            prop_assert_eq!(pairs.len(), expected.len());
        }
    }
}
