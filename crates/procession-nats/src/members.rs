//! [`Members`]: some of the tasks of a bundle. A bundle is one or more tasks that travel in one message and have one
//! claim. Each of them has its own result, can be cancelled alone, and is begun again alone.

use serde::{Deserialize, Serialize};

/// A set of members of a bundle, by their indices in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Members(u64);

impl Members {
    /// The maximum number of members of a bundle.
    pub(crate) const MOST: usize = 32;

    /// The first members, as many as `number` says.
    pub(crate) fn first(number: usize) -> Self {
        Self((1 << number.min(Self::MOST)) - 1)
    }

    /// The set of the one member with this index. It is empty if the index is [`MOST`](Self::MOST) or more.
    pub(crate) fn one(index: usize) -> Self {
        if index < Self::MOST { Self(1 << index) } else { Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn has(self, index: usize) -> bool {
        !self.and(Self::one(index)).is_empty()
    }

    /// The members that are in both sets.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The members that are in one of the sets, or in both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The members that are not in the other set.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The indices, in their order.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MOST).filter(move |index| self.has(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_of_a_bundle_and_no_others() {
        let three = Members::first(3);
        assert_eq!((three.len(), three.iter().collect::<Vec<_>>()), (3, vec![0, 1, 2]));
        let odd = three.without(Members::one(1));
        assert!(odd.has(0) && !odd.has(1) && odd.has(2) && !odd.has(64));
        assert_eq!((odd.and(Members::one(2)), odd.or(Members::one(1))), (Members::one(2), three));
        assert!(Members::one(Members::MOST).is_empty() && Members::first(0).is_empty());
        assert_eq!(Members::first(100).len(), Members::MOST);
        assert_eq!(serde_json::to_string(&odd).expect("a number"), "5");
    }
}
