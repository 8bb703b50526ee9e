//! Environment → what a build works with: the store's place, the settings, the user namespace, the signals.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::build::Workplace;
use crate::cli::exit::Error;
use crate::collection::Caps;
use crate::layer::OverlayXattr;
use crate::layer::unpack::Owners;
use crate::progress::{Reporter, Sink};
use crate::registry::{Client, CredentialFiles};
use crate::runtime::network::Program;
use crate::runtime::{self, Cancel, userns};
use crate::settings::{Location, Settings};
use crate::store::{Kept, Store};

/// How many steps run at once. More than there are processors, because steps wait for disks, networks and sleeps.
const SLOTS: usize = 32;

/// Opens the store for commands that only look at it or at names in it, and clears away what killed commands left there.
/// Must be called while the process has one thread.
pub(super) fn store() -> Result<Store, Error> {
    let store = Store::open(&store_root()?)?;
    if store.has_leftovers() {
        // What a step left may belong to any of the user's ids.
        if userns::needed() {
            userns::enter()?;
        }
        // What resists stays for the next sweep, and hinders nobody.
        drop(store.sweep()?.wait());
    }
    Ok(store)
}

/// Opens the store for commands that look at every file in it or remove some, and clears away what killed commands left:
/// the files may belong to any of the user's ids. Must be called while the process has one thread.
pub(super) fn whole_store() -> Result<Store, Error> {
    let root = store_root()?;
    if userns::needed() {
        userns::enter()?;
    }
    let store = Store::open(&root)?;
    // What resists stays for the next sweep, and is counted.
    drop(store.sweep()?.wait());
    Ok(store)
}

/// How much the store may take.
pub(super) fn caps(settings: &Settings) -> Caps {
    let (Caps { most, free, reserved }, given) = (Caps::default(), settings.store);
    Caps {
        most: given.keep_storage.unwrap_or(most),
        free: given.min_free.unwrap_or(free),
        reserved: given.reserved.unwrap_or(reserved),
    }
}

/// Makes everything ready for a build. Must be called while the process has one thread: entering a user namespace
/// takes that.
pub(super) fn open(sink: Arc<dyn Sink>) -> Result<Workplace, Error> {
    Ok(open_with_caps(sink)?.0)
}

/// The same, with how much the store may take.
pub(super) fn open_with_caps(sink: Arc<dyn Sink>) -> Result<(Workplace, Caps), Error> {
    let root = store_root()?;
    let (xattr, owners) = if userns::needed() {
        let entered = userns::enter()?;
        (OverlayXattr::User, if entered.single { Owners::Squashed } else { Owners::Kept })
    } else {
        (OverlayXattr::Trusted, Owners::Kept)
    };
    let store = Store::open(&root)?;
    let environment = |name: &str| std::env::var_os(name);
    let settings = Settings::load(&Location::from_environment(&environment))?;
    let kept = Kept { builds: settings.logs.builds, bytes: settings.logs.bytes };
    let pasta = std::env::var_os("STRATA_PASTA").filter(|value| !value.is_empty());
    let pasta = Program::from_setting(pasta.or(settings.network.pasta.clone()).as_deref());
    let limits = settings.step.clone();
    let caps = caps(&settings);
    let cancel = Cancel::new();
    let client = Arc::new(Client::new(settings, CredentialFiles::from_environment(&environment)));
    catch_signals(&cancel, &client)?;
    let reporter = Reporter::new(sink);
    let place = Workplace { store, client, reporter, cancel, xattr, owners, slots: SLOTS, kept, pasta, limits };
    Ok((place, caps))
}

/// `$STRATA_ROOT`, else `/var/lib/strata` for root, else `$XDG_DATA_HOME/strata`.
fn store_root() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = set("STRATA_ROOT") {
        return std::path::absolute(&root)
            .map_err(|error| Error::Usage(format!("STRATA_ROOT={}: {error}", root.display())));
    }
    if rustix::process::geteuid().is_root() && !userns::needed() {
        return Ok("/var/lib/strata".into());
    }
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("strata"))
        .ok_or_else(|| Error::Usage("neither STRATA_ROOT nor HOME is set: there is no place for the store".to_owned()))
}

/// The first signal cancels the build; the second ends the process at once, and with it, by their parent-death signal,
/// every step.
fn catch_signals(cancel: &Cancel, client: &Arc<Client>) -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::Signals)?;
    let (cancel, client) = (cancel.clone(), Arc::clone(client));
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if cancel.is_cancelled() {
                runtime::restore_terminal();
                // Fails only for signals that cannot be raised, and these can.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            cancel.cancel();
            client.cancel();
        }
    });
    Ok(())
}
