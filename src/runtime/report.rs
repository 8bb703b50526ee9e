//! What the processes of a sandbox tell their parent: a few bytes over a pipe.
//!
//! A sandbox sends a [`Report::Failed`] when a step of its set-up fails, and otherwise one about how the process ended.
//! Sending allocates nothing. The sandboxed program never has the pipe.

use std::os::fd::{AsFd, OwnedFd};

use super::error::Stage;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// A step of the set-up failed.
    Failed {
        /// Which one.
        stage: Stage,
        /// The kernel's error number.
        errno: i32,
        /// For [`Stage::Execute`], which of the candidates it was about; `None` if none exists.
        candidate: Option<usize>,
    },
    /// The process returned this code.
    Exited(i32),
    /// This signal ended the process.
    Signaled(i32),
}

/// Bytes of a message: its kind, the step, the number of the candidate, the error number, code or signal.
const SIZE: usize = 10;
/// Stands for no candidate.
const NONE: u32 = u32::MAX;

impl Report {
    /// Writes the message; one this short is written whole or not at all.
    pub(super) fn send(self, pipe: impl AsFd) {
        let (kind, stage, candidate, number) = match self {
            Self::Failed { stage, errno, candidate } => {
                (0, stage.code(), candidate.and_then(|number| u32::try_from(number).ok()).unwrap_or(NONE), errno)
            }
            Self::Exited(code) => (1, 0, NONE, code),
            Self::Signaled(signal) => (2, 0, NONE, signal),
        };
        let ([c0, c1, c2, c3], [n0, n1, n2, n3]) = (candidate.to_le_bytes(), number.to_le_bytes());
        // If the parent is gone, so is everyone who could be told.
        let _ = rustix::io::write(pipe, &[kind, stage, c0, c1, c2, c3, n0, n1, n2, n3]);
    }

    /// The first message in a pipe whose writers are gone, if there is one.
    pub(super) fn receive(pipe: &OwnedFd) -> Option<Self> {
        let mut bytes = [0; SIZE];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut bytes)).ok()?;
        if length != SIZE {
            return None;
        }
        let [kind, stage, c0, c1, c2, c3, n0, n1, n2, n3] = bytes;
        let number = i32::from_le_bytes([n0, n1, n2, n3]);
        match kind {
            0 => Some(Self::Failed {
                stage: Stage::from_code(stage)?,
                errno: number,
                candidate: match u32::from_le_bytes([c0, c1, c2, c3]) {
                    NONE => None,
                    candidate => usize::try_from(candidate).ok(),
                },
            }),
            1 => Some(Self::Exited(number)),
            2 => Some(Self::Signaled(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_sent() {
        for report in [
            Report::Failed { stage: Stage::ParentDeath, errno: 1, candidate: None },
            Report::Failed { stage: Stage::Execute, errno: libc::ENOENT, candidate: Some(7) },
            Report::Exited(0),
            Report::Exited(255),
            Report::Signaled(9),
        ] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            report.send(&writer);
            assert_eq!(Report::receive(&reader), Some(report));
            drop(writer);
            assert_eq!(Report::receive(&reader), None);
        }
    }
}
