//! What `--chmod` may say.
//!
//! Takes its value, says whether it is octal up to 07777 or symbolic as in chmod(1); changing a mode is the engine's part.

/// Whether a value is a mode: octal digits, or clauses such as `u=rwX,go=rX`.
pub(super) fn is_mode(text: &str) -> bool {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777);
    }
    text.split(',').all(is_clause)
}

/// `[ugoa]*` and then one or more of `[-+=]` with either permissions or one class to copy them from.
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['-', '+', '=']) {
        return false;
    }
    actions.split(['-', '+', '=']).skip(1).all(|permissions| {
        matches!(permissions, "u" | "g" | "o") || permissions.chars().all(|permission| "rwxXst".contains(permission))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for mode in ["0", "755", "0755", "7777", "u=rwX,go=rX", "+x", "a-w", "g=u", "u+s,o=", "u+r-w"] {
            assert!(is_mode(mode), "{mode}");
        }
        for mode in ["", "8", "0o755", "17777", "rwx", "u", "u+q", "u=rw,", "-rw-r--r--x?", "999999999999"] {
            assert!(!is_mode(mode), "{mode}");
        }
    }
}
