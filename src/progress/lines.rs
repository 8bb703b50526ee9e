//! Bytes as they arrive → whole lines.

/// Collects bytes until a line is whole. Bytes that are no UTF-8 are shown as `�`; a carriage return starts its line
/// anew, as a terminal would show it.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Adds bytes and gives the lines they complete, without their ends.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(&rest[..end]);
            lines.push(shown(&std::mem::take(&mut self.partial)));
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        lines
    }

    /// One line, with or without its end, as it is shown.
    pub(crate) fn one(line: &[u8]) -> String {
        shown(line.strip_suffix(b"\n").unwrap_or(line))
    }

    /// The last line, if it was never ended.
    pub(crate) fn rest(self) -> Option<String> {
        (!self.partial.is_empty()).then(|| shown(&self.partial))
    }
}

fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let visible = line.rsplit(|&byte| byte == b'\r').next().unwrap_or(line);
    String::from_utf8_lossy(visible).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_only() {
        let mut lines = Lines::default();
        assert!(lines.push(b"ab").is_empty());
        assert_eq!(lines.push(b"c\nd\n\ne"), ["abc", "d", ""]);
        assert_eq!(lines.push(b"10%\r100%\r\n"), ["100%"]);
        assert_eq!(lines.push(b"\xff\n"), ["\u{fffd}"]);
        assert_eq!(lines.rest(), None);
    }
}
