//! `strata rm`

use clap::Args;

use crate::cli::{exit, inspect, print, workplace};
use crate::recipe::reference::Reference;

/// The arguments of `rm`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The images' names
    #[arg(required = true)]
    names: Vec<String>,
}

/// Removes names. Either all of them are there, or none is removed.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let names: Vec<Reference> = arguments.names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let store = workplace::store()?;
    for name in &names {
        inspect::find(&store, name)?;
    }
    for name in &names {
        store.remove_image(name)?;
        print(&format!("removed {}\n", name.familiar()))?;
    }
    Ok(())
}
