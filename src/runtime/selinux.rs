//! The SELinux labels of a step, on hosts that enforce them.
//!
//! Asks the kernel whether it enforces a policy that knows the labels of containers and lets Strata give them, and if so
//! gives a pair of [`Labels`]: one for the step's process, one for the file systems that are made for it. Where anything
//! of that is refused the step runs in the domain of Strata itself, and [`verdict`] says what was refused: half a label
//! would make a step fail, or silence it. Never relabels a file, and never changes a policy.
//!
//! The types are those of `container-selinux`, which Docker and Podman use, too. Every run gets a pair of categories of
//! its own, so that it reaches nothing of another container's. The labels of file systems come from the mount option
//! `context=`, so that whatever a layer's files are labelled with on disk means nothing inside, and nothing that a step
//! makes brings a label into a layer (`layer::xattr` leaves such attributes out besides).

use std::ffi::{CStr, CString};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use super::{Plan, Security, Source, attribute};

/// What a step's process and files are labelled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    /// Of the process.
    pub process: CString,
    /// Of the file systems.
    pub files: CString,
}

impl Labels {
    /// The type of the process, which is what a policy has rules about.
    pub(super) const TYPE: &'static str = "container_t";

    /// Those with a pair of categories that `random` stands for.
    fn with_categories(random: u64) -> Self {
        let (low, high) = categories(random);
        let text = |kind: &str| CString::new(format!("system_u:{kind}:s0:c{low},c{high}"));
        // Neither has a NUL byte.
        let (process, files) = (text(&format!("system_r:{}", Self::TYPE)), text("object_r:container_file_t"));
        Self { process: process.unwrap_or_default(), files: files.unwrap_or_default() }
    }
}

/// How many categories every policy of this kind has.
const CATEGORIES: u64 = 1024;

/// Two different ones, the smaller one first, as the kernel writes them.
fn categories(random: u64) -> (u64, u64) {
    let first = random % CATEGORIES;
    let second = (first + 1 + random / CATEGORIES % (CATEGORIES - 1)) % CATEGORIES;
    (first.min(second), first.max(second))
}

/// What SELinux means for steps on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The kernel has no SELinux, or hides it here.
    Off,
    /// It notes what it would deny, and denies nothing.
    Permissive,
    /// It enforces a policy under which steps cannot have labels of their own.
    Refused(Refusal),
    /// It enforces a policy, and steps get labels.
    Labelled,
}

/// What keeps steps from having labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The policy does not know a label.
    Unknown {
        /// The label.
        label: String,
    },
    /// The policy does not allow something that a labelled step needs.
    Denied {
        /// Who may not.
        source: String,
        /// On what.
        target: String,
        /// What kind of thing that is.
        class: &'static str,
        /// What.
        permission: &'static str,
    },
    /// The kernel does not answer.
    Silent {
        /// Which file of selinuxfs was asked.
        file: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { label } => write!(f, "its policy has no {label}"),
            Self::Denied { source, target, class, permission } => {
                write!(f, "its policy denies {source} the permission {permission} on {class} of {target}")
            }
            Self::Silent { file } => write!(f, "{file} below /sys/fs/selinux does not answer"),
        }
    }
}

/// The labels of a run, where it gets any.
///
/// A run without the sandbox's confinement gets none, as with Docker. Nor does one that mounts something of the host's
/// own, which keeps its label: a labelled process could not use a cache mount or reach the socket of an SSH agent.
pub(super) fn labels(plan: &Plan) -> Option<Labels> {
    let of_host = |source: &Source| matches!(source, Source::Host(_));
    let fits = plan.security == Security::Sandbox && !plan.mounts.iter().any(|mount| of_host(&mount.source));
    // Drawn from keys that differ for every process and every call.
    let random = || RandomState::new().hash_one(0);
    (fits && *verdict() == Verdict::Labelled).then(|| Labels::with_categories(random()))
}

/// What SELinux means for steps on this host; asked once.
pub(super) fn verdict() -> &'static Verdict {
    static VERDICT: OnceLock<Verdict> = OnceLock::new();
    VERDICT.get_or_init(|| judge(&SelinuxFs))
}

/// Gives the next program of the calling process a label. Allocates nothing.
pub(super) fn change_on_exec(label: &CStr) -> io::Result<()> {
    let attribute = attribute::open(c"/proc/self/attr/exec")?;
    rustix::io::write(attribute, label.to_bytes())?;
    Ok(())
}

/// The kernel's answers.
trait Kernel {
    /// Whether selinuxfs is mounted where it belongs.
    fn is_mounted(&self) -> bool;
    /// The label of this process.
    fn own_label(&self) -> io::Result<String>;
    /// The text of a file of selinuxfs.
    fn read(&self, file: &str) -> io::Result<String>;
    /// The answer of a file of selinuxfs to a question.
    fn ask(&self, file: &str, question: &str) -> io::Result<String>;
}

fn judge(kernel: &dyn Kernel) -> Verdict {
    if !kernel.is_mounted() {
        return Verdict::Off;
    }
    match kernel.read("enforce").as_deref().map(str::trim) {
        Ok("1") => match check(kernel) {
            Ok(()) => Verdict::Labelled,
            Err(refusal) => Verdict::Refused(refusal),
        },
        Ok(_) => Verdict::Permissive,
        Err(_) => Verdict::Refused(Refusal::Silent { file: "enforce".to_owned() }),
    }
}

/// Goes through all that a labelled step needs.
fn check(kernel: &dyn Kernel) -> Result<(), Refusal> {
    // Which categories it is does not matter to any rule.
    let labels = Labels::with_categories(0);
    let (process, files) = (labels.process.to_string_lossy(), labels.files.to_string_lossy());
    for label in [&process, &files] {
        if kernel.ask("context", label).is_err() {
            return Err(Refusal::Unknown { label: label.to_string() });
        }
    }
    let own = kernel.own_label().map_err(|_| Refusal::Silent { file: "context".to_owned() })?;
    for (source, target, class, permission) in [
        (&*own, &*own, "process", "setexec"),
        (&own, &process, "process", "transition"),
        (&own, &files, "filesystem", "relabelto"),
        (&process, &files, "file", "entrypoint"),
        (&process, &files, "file", "execute"),
        (&process, &files, "dir", "write"),
        // What it writes goes through pipes that Strata has made. Those that it may not use are taken from it silently.
        (&process, &own, "fd", "use"),
        (&process, &own, "fifo_file", "write"),
    ] {
        if !allows(kernel, source, target, class, permission)? {
            let (source, target) = (source.to_owned(), target.to_owned());
            return Err(Refusal::Denied { source, target, class, permission });
        }
    }
    Ok(())
}

/// Whether the policy allows `source` something on a `class` of `target`.
fn allows(kernel: &dyn Kernel, source: &str, target: &str, class: &str, permission: &str) -> Result<bool, Refusal> {
    let number = |file: String| -> Result<u32, Refusal> {
        let text = kernel.read(&file).ok();
        text.and_then(|text| text.trim().parse().ok()).ok_or(Refusal::Silent { file })
    };
    let index = number(format!("class/{class}/index"))?;
    let bit = number(format!("class/{class}/perms/{permission}"))?;
    let silent = || Refusal::Silent { file: "access".to_owned() };
    let answer = kernel.ask("access", &format!("{source} {target} {index}")).map_err(|_| silent())?;
    // The first word is the set of all that is allowed.
    let allowed = answer.split_ascii_whitespace().next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let mask = bit.checked_sub(1).and_then(|bit| 1_u32.checked_shl(bit)).ok_or_else(silent)?;
    Ok(allowed.ok_or_else(silent)? & mask != 0)
}

/// The kernel's own file system.
struct SelinuxFs;

/// `SELINUX_MAGIC`
const MAGIC: u32 = 0xf97c_ff8c;
const MOUNT: &str = "/sys/fs/selinux";

impl Kernel for SelinuxFs {
    fn is_mounted(&self) -> bool {
        rustix::fs::statfs(MOUNT).is_ok_and(|found| u32::try_from(found.f_type & 0xffff_ffff) == Ok(MAGIC))
    }

    fn own_label(&self) -> io::Result<String> {
        let label = std::fs::read_to_string("/proc/self/attr/current")?;
        Ok(label.trim_end_matches(['\0', '\n']).to_owned())
    }

    fn read(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(Path::new(MOUNT).join(file))
    }

    fn ask(&self, file: &str, question: &str) -> io::Result<String> {
        // The answer belongs to the open file that the question was written to, and the question must come in one piece.
        let file = std::fs::File::options().read(true).write(true).open(Path::new(MOUNT).join(file))?;
        rustix::io::write(&file, question.as_bytes())?;
        let mut answer = [0; 512];
        let length = rustix::io::pread(&file, &mut answer, 0)?;
        Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const OWN: &str = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023";

    /// A policy that knows every label but `unknown` and allows everything but `denied`.
    struct Fake {
        enforce: &'static str,
        unknown: &'static str,
        denied: (&'static str, &'static str),
    }

    const WILLING: Fake = Fake { enforce: "1", unknown: "none", denied: ("", "") };

    /// The classes and permissions by number: not those of any real policy, because a policy chooses them.
    const CLASSES: [(&str, &[&str]); 6] = [
        ("process", &["fork", "setexec", "transition"]),
        ("filesystem", &["mount", "relabelfrom", "relabelto"]),
        ("file", &["execute", "read", "entrypoint"]),
        ("dir", &["read", "write"]),
        ("fd", &["use"]),
        ("fifo_file", &["read", "write"]),
    ];

    impl Kernel for Fake {
        fn is_mounted(&self) -> bool {
            !self.enforce.is_empty()
        }

        fn own_label(&self) -> io::Result<String> {
            Ok(OWN.to_owned())
        }

        fn read(&self, file: &str) -> io::Result<String> {
            let mut parts = file.split('/');
            let found = match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some("enforce"), ..) => Some(self.enforce.to_owned()),
                (Some("class"), Some(class), Some("index"), None) => {
                    CLASSES.iter().position(|(name, _)| *name == class).map(|index| (index + 1).to_string())
                }
                (Some("class"), Some(class), Some("perms"), Some(permission)) => {
                    let permissions = CLASSES.iter().find(|(name, _)| *name == class).map(|(_, all)| *all);
                    let position = permissions.and_then(|all| all.iter().position(|name| *name == permission));
                    position.map(|index| (index + 1).to_string())
                }
                _ => None,
            };
            found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        }

        fn ask(&self, file: &str, question: &str) -> io::Result<String> {
            if file == "context" {
                let known = !question.contains(self.unknown);
                return known.then(|| question.to_owned()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
            }
            assert_eq!(file, "access");
            let words: Vec<_> = question.split(' ').collect();
            let [source, target, index] = words[..] else { panic!("{question}") };
            assert!(source.contains("_t:s0") && target.contains("_t:s0"), "{question}");
            let (class, permissions) = CLASSES[index.parse::<usize>().unwrap() - 1];
            let allowed = permissions.iter().enumerate().filter(|(_, name)| self.denied != (class, *name));
            let mask = allowed.fold(0_u32, |mask, (bit, _)| mask | 1 << bit);
            Ok(format!("{mask:x} ffffffff 0 ffffffff 7 0"))
        }
    }

    #[test]
    fn selinux_labels_steps_where_the_policy_lets_it() {
        assert_eq!(judge(&WILLING), Verdict::Labelled);
        assert_eq!(judge(&Fake { enforce: "", ..WILLING }), Verdict::Off);
        assert_eq!(judge(&Fake { enforce: "0\n", ..WILLING }), Verdict::Permissive);
        for unknown in ["container_t", "container_file_t"] {
            let Verdict::Refused(refusal) = judge(&Fake { unknown, ..WILLING }) else { panic!("{unknown}") };
            assert!(refusal.to_string().contains(unknown), "{refusal}");
        }
        for denied in [
            ("process", "setexec"),
            ("process", "transition"),
            ("filesystem", "relabelto"),
            ("file", "entrypoint"),
            ("file", "execute"),
            ("dir", "write"),
            ("fd", "use"),
            ("fifo_file", "write"),
        ] {
            let Verdict::Refused(refusal) = judge(&Fake { denied, ..WILLING }) else { panic!("{denied:?}") };
            let said = refusal.to_string();
            assert!(said.contains(denied.0) && said.contains(denied.1), "{said}");
        }
        // Something that no step needs.
        assert_eq!(judge(&Fake { denied: ("process", "fork"), ..WILLING }), Verdict::Labelled);
    }

    #[test]
    fn labels_have_two_categories_in_order() {
        let mut seen = BTreeSet::new();
        for random in (0..CATEGORIES * CATEGORIES).step_by(37).chain([u64::MAX, u64::MAX - 1]) {
            let (low, high) = categories(random);
            assert!(low < high && high < CATEGORIES, "{random}: {low},{high}");
            seen.insert((low, high));
        }
        assert!(seen.len() > 20_000, "{}", seen.len());
        let labels = Labels::with_categories(5);
        assert_eq!(labels.process.to_str().unwrap(), "system_u:system_r:container_t:s0:c5,c6");
        assert_eq!(labels.files.to_str().unwrap(), "system_u:object_r:container_file_t:s0:c5,c6");
    }
}
