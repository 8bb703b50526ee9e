//! A shell where a step runs: the same root, environment, user and mounts, and somebody at a terminal.
//!
//! Takes what a step would be run with, or was run with when it failed; gives a shell's exit status. Nothing that is done
//! in it becomes part of a layer: the changes go with the [`Sandbox`].

use std::ffi::CString;
use std::sync::Arc;

use crate::base::completion::Completions;
use crate::execute::mount::{Mounted, Shown};
use crate::execute::network::Networks;
use crate::execute::run::{Prepared, prepare};
use crate::execute::{Error, Executor, c_string};
use crate::graph::RunOp;
use crate::image::chain::Chain;
use crate::progress::Task;
use crate::runtime::{self, Cancel, Plan, Status, Terminal};
use crate::store::Scratch;

/// Tried in this order where the recipe's own shell is not there.
const SHELLS: [&str; 4] = ["/bin/sh", "/bin/bash", "sh", "bash"];

/// The place of one step, ready to be entered.
pub struct Sandbox {
    plan: Plan,
    /// Programs to try.
    shells: Vec<CString>,
    /// Where the step's changes are.
    _scratch: Scratch,
    /// What the mounts need.
    _mounted: Mounted,
    /// What keeps the network alive.
    _networks: Arc<Networks>,
    /// What keeps directories of the root that no layer has.
    _completions: Arc<Completions>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("Sandbox").field("shells", &self.shells).finish_non_exhaustive()
    }
}

impl Executor<'_> {
    /// Makes the place of a `RUN` ready, as it is before the command runs.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn enter(&self, op: &RunOp, parent: &Chain, shown: Vec<Shown>, task: &Task<'_>) -> Result<Sandbox, Error> {
        Sandbox::of(op, prepare(self, op, parent, shown, task)?)
    }
}

impl Sandbox {
    /// The place of a step, as its command left it.
    pub(super) fn of(op: &RunOp, prepared: Prepared) -> Result<Self, Error> {
        let Prepared { plan, mounted, scratch, networks, completions, .. } = prepared;
        let own = shell_of(&op.argv).into_iter().filter(|own| !SHELLS.contains(own));
        let shells = own.chain(SHELLS).map(c_string).collect::<Result<_, _>>()?;
        Ok(Self { plan, shells, _scratch: scratch, _mounted: mounted, _networks: networks, _completions: completions })
    }

    /// Opens the first shell that is there on a terminal, whose kind is `term`, and stays until it ends.
    ///
    /// # Errors
    /// If the sandbox could not be made, or the root has no shell.
    pub fn open_shell(&self, terminal: &Terminal, term: Option<&str>, cancel: &Cancel) -> Result<Status, Error> {
        let mut plan = self.plan.clone();
        if let Some(term) = term
            && !plan.env.iter().any(|variable| variable.to_bytes().starts_with(b"TERM="))
        {
            plan.env.push(c_string(&format!("TERM={term}"))?);
        }
        let mut first = None;
        for shell in &self.shells {
            plan.argv = vec![shell.clone()];
            match runtime::run_on_terminal(&plan, terminal, cancel) {
                Err(error) if error.exit_status().is_some() => drop(first.get_or_insert(error)),
                outcome => return Ok(outcome?.status),
            }
        }
        Err(first.map_or(Error::Cancelled, Error::Runtime))
    }
}

/// The shell of a command line such as `/bin/bash -o pipefail -c text`.
fn shell_of(argv: &[String]) -> Option<&str> {
    let (program, rest) = argv.split_first()?;
    let is_command_flag = |word: &String| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c');
    let before_text = rest.len().checked_sub(2)?;
    rest.get(before_text).filter(|word| is_command_flag(word)).map(|_| program.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_of_a_command_line() {
        for (words, expected) in [
            ("/bin/sh -c text", Some("/bin/sh")),
            ("/bin/bash -o pipefail -c text", Some("/bin/bash")),
            ("/bin/ash -eo pipefail -ec text", Some("/bin/ash")),
            ("make check", None),
            ("prog --abc x", None),
            ("ls", None),
            ("", None),
        ] {
            let argv: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            assert_eq!(shell_of(&argv), expected, "{words}");
        }
    }
}
