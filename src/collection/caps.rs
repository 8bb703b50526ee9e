//! How much a store may take: shares of its disk, or sizes, and what they come to.

use crate::store::Room;
use crate::units::Amount;

/// The bounds of a store. Of several, the one that leaves it the least counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// It takes no more than this; nothing bounds it where absent.
    pub most: Option<Amount>,
    /// So much of the disk stays free, whoever fills it.
    pub free: Option<Amount>,
    /// So much it may have even where others fill the disk.
    pub reserved: Amount,
}

impl Default for Caps {
    /// Six tenths of the disk; a tenth of it stays free, for others; a tenth the store has even if it does not.
    fn default() -> Self {
        Self { most: Some(Amount::Percent(60)), free: Some(Amount::Percent(10)), reserved: Amount::Percent(10) }
    }
}

impl Caps {
    /// How many bytes a store that takes `used` bytes now may keep on a disk with this room; `None` for any number.
    pub fn keep(&self, used: u64, room: &Room) -> Option<u64> {
        let missing = self.free.map(|free| free.of(room.total).saturating_sub(room.free));
        let reserved = self.reserved.of(room.total);
        let for_others = missing.filter(|missing| *missing > 0);
        let for_others = for_others.map(|missing| used.saturating_sub(missing).max(reserved));
        let most = self.most.map(|most| most.of(room.total));
        [most, for_others].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_bound_counts_down_to_what_is_reserved() {
        const GIB: u64 = 1 << 30;
        let percent = |number| Some(Amount::Percent(number));
        let bytes = |gib: u64| Some(Amount::Bytes(gib * GIB));
        // (most, free, reserved), (used, free on a disk of 100 GiB) → keep
        for (most, free, reserved, used, available, expected) in [
            (percent(60), percent(10), 10, 5, 90, Some(60)),
            (percent(60), percent(10), 10, 70, 25, Some(60)),
            (percent(60), percent(10), 10, 40, 4, Some(34)),
            (percent(60), percent(10), 10, 12, 0, Some(10)),
            (bytes(20), None, 0, 12, 0, Some(20)),
            (None, bytes(15), 0, 12, 10, Some(7)),
            (None, bytes(15), 0, 12, 20, None),
            (None, None, 10, 12, 0, None),
            (bytes(5), percent(10), 10, 12, 0, Some(5)),
        ] {
            let caps = Caps { most, free, reserved: Amount::Percent(reserved) };
            let room = Room { free: available * GIB, total: 100 * GIB, free_files: None };
            assert_eq!(caps.keep(used * GIB, &room).map(|keep| keep / GIB), expected, "{caps:?} {used} {available}");
        }
    }
}
