//! The signals `STOPSIGNAL` may name.
//!
//! Takes the word, says whether it is a signal of Linux. Never changes it: the image keeps it as written.

/// Linux's signals by name, without `SIG`; `RTMIN+n` and `RTMAX-n` are worked out.
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Whether a word names a signal: any number but 0, or a name with or without `SIG`, in any case.
pub(super) fn is_signal(word: &str) -> bool {
    if let Ok(number) = word.parse::<i64>() {
        return number != 0;
    }
    let upper = word.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || is_real_time(name, "RTMIN+", 15) || is_real_time(name, "RTMAX-", 14)
}

/// The names of every signal, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied()
}

fn is_real_time(name: &str, prefix: &str, most: u8) -> bool {
    name.strip_prefix(prefix)
        .filter(|offset| !offset.starts_with(['0', '+']))
        .and_then(|offset| offset.parse::<u8>().ok())
        .is_some_and(|offset| offset <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_numbers_and_names() {
        for word in ["9", "SIGTERM", "term", "sigKill", "RTMIN+3", "SIGRTMAX-14", "64"] {
            assert!(is_signal(word), "{word}");
        }
        for word in ["0", "", "SIG", "TERMINATE", "RTMIN+16", "RTMAX-15", "RTMIN+0", "SIG9"] {
            assert!(!is_signal(word), "{word}");
        }
    }
}
