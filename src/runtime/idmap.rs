//! Which ids a user may use in a user namespace.
//!
//! Takes the text of `/etc/subuid` or `/etc/subgid`, gives the ranges of one user and the mapping that makes the user
//! root and the ranges everyone else. Pure: reads nothing itself.

/// Consecutive ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// One line of a mapping: `count` ids from `inside` on are those of the host from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    /// First id in the namespace.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ranges that `text` grants to the user of this name or number, see subuid(5).
///
/// Lines that cannot be read grant nothing.
pub(super) fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, start, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let granted = fields.next().is_none() && count > 0 && (Some(owner) == name || owner == uid);
        granted.then_some(Range { start, count })
    });
    lines.collect()
}

/// The user as 0, then the ranges one after the other from 1 on.
pub(super) fn mapping(id: u32, ranges: &[Range]) -> Vec<Mapping> {
    let mut lines = vec![Mapping { inside: 0, outside: id, count: 1 }];
    let mut inside = 1_u32;
    for range in ranges {
        // The last id, all ones, means "no id" and cannot be mapped.
        let count = range.count.min(u32::MAX - inside).min(u32::MAX.saturating_sub(range.start));
        if count > 0 {
            lines.push(Mapping { inside, outside: range.start, count });
            inside += count;
        }
    }
    lines
}

/// How many ids a mapping has.
pub(super) fn total(mapping: &[Mapping]) -> u32 {
    mapping.iter().fold(0, |sum, line| sum.saturating_add(line.count))
}

/// The name of a user in the text of `/etc/passwd`.
pub(super) fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "# comment\nalice:100000:65536\nbob:200000:1000\n1000:300000:10\nalice:x:1\nalice:5:0\n\nalice:7";
        let range = |start, count| Range { start, count };
        assert_eq!(ranges(text, Some("alice"), 1000), [range(100_000, 65536), range(300_000, 10)]);
        assert_eq!(ranges(text, Some("bob"), 1), [range(200_000, 1000)]);
        assert_eq!(ranges(text, None, 1), []);
    }

    #[test]
    fn mapping_puts_the_user_first_and_stays_in_bounds() {
        let lines = mapping(1000, &[Range { start: 100_000, count: 65536 }, Range { start: 300_000, count: 10 }]);
        let line = |inside, outside, count| Mapping { inside, outside, count };
        assert_eq!(lines, [line(0, 1000, 1), line(1, 100_000, 65536), line(65537, 300_000, 10)]);
        assert_eq!(total(&lines), 65547);
        let huge = mapping(0, &[Range { start: 10, count: u32::MAX }, Range { start: 0, count: u32::MAX }]);
        assert!(huge.iter().all(|line| line.inside.checked_add(line.count).is_some()), "{huge:?}");
    }

    #[test]
    fn names_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("alice"));
        assert_eq!(user_name(passwd, 0), Some("root"));
        assert_eq!(user_name(passwd, 5), None);
    }
}
