//! What can go wrong with a run, and which step of its set-up it was.
//!
//! Gives one [`Error`] for the module. Each message names the thing concerned and, where somebody can do something
//! about it, the knob. A program that ran and failed is not an error but a [`Status`](super::Status).

use std::io;
use std::path::PathBuf;

use super::cgroup;
use crate::limits::Ulimit;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan contradicts what its fields promise; a mistake of the caller's.
    #[error("the sandbox was given a plan that cannot be carried out: {problem}")]
    Plan {
        /// What is wrong.
        problem: String,
    },
    /// One of the caller's directories could not be opened, made, changed or cleared.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried: "open", "create", ….
        action: &'static str,
        /// The directory on the host.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// More layers than an overlay takes.
    #[error("a root of {count} layers is more than the kernel's overlay file system can stack ({limit})")]
    TooManyLayers {
        /// How many there are, with the one that the sandbox adds for its mount points.
        count: usize,
        /// The kernel's limit.
        limit: usize,
    },
    /// The kernel did not mount the overlay.
    #[error("cannot mount an overlay with the directory {} on top{}", upper.display(), detail(said))]
    Overlay {
        /// The upper directory, or the topmost one of a read-only overlay.
        upper: PathBuf,
        /// The kernel's own words, if it had any.
        said: String,
        /// What the kernel said in a number.
        #[source]
        source: io::Error,
    },
    /// A file system that the sandbox needs beside the root could not be made.
    #[error("cannot make a {kind} file system for the sandbox{}", detail(said))]
    FileSystem {
        /// Its type.
        kind: &'static str,
        /// The kernel's own words, if it had any.
        said: String,
        /// What the kernel said in a number.
        #[source]
        source: io::Error,
    },
    /// Something in the image is in the way of what every sandbox has.
    #[error("the root has no place for {}: {problem}", target.display())]
    Target {
        /// The path inside the root.
        target: PathBuf,
        /// What is in the way.
        problem: String,
    },
    /// Something could not be mounted for the run.
    #[error("cannot mount on {}", target.display())]
    Mount {
        /// Where, inside the root.
        target: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What a mount is to show is not there.
    #[error("cannot mount {} on {}: there is no such file or directory", path.display(), target.display())]
    MountSource {
        /// The path inside its layers.
        path: PathBuf,
        /// Where it is to be mounted, inside the root.
        target: PathBuf,
    },
    /// A file made for the run cannot belong to whom it should.
    #[error("the file {} cannot belong to {uid}:{gid}: the ids must be mapped \
        (add a range of ids for this user to /etc/subuid and /etc/subgid)", target.display())]
    MountOwner {
        /// Where it is to be mounted, inside the root.
        target: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A path inside the root could not be looked at or made.
    #[error("cannot {action} {} inside the root", path.display())]
    Inside {
        /// What was tried.
        action: &'static str,
        /// The path inside the root.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The working directory exists and is no directory.
    #[error("the working directory {} is not a directory", path.display())]
    WorkingDirectory {
        /// The path inside the root.
        path: PathBuf,
    },
    /// The limits of the run need a control group, and that could not be made.
    #[error(transparent)]
    ControlGroup(#[from] cgroup::Error),
    /// A limit of single processes was refused.
    #[error("cannot set --ulimit {ulimit}{}", ulimit_hint(source))]
    Ulimit {
        /// Which one.
        ulimit: Ulimit,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel did not give the sandbox its first process.
    #[error("cannot start a process in new namespaces{}", namespaces_hint(source))]
    Start {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step of the set-up inside the new namespaces failed.
    #[error("cannot {stage}{}", stage.hint(source.raw_os_error()))]
    Setup {
        /// Which one.
        stage: Stage,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no such program in the root.
    #[error("{program}: not found in the root file system{}", searched(path.as_deref()))]
    ProgramNotFound {
        /// The program as the plan names it.
        program: String,
        /// The `PATH` that was searched, unless the name has a slash.
        path: Option<String>,
    },
    /// The program is there, but the program that the kernel needs to run it is not.
    #[error("{program}: exists, but its interpreter {interpreter} does not")]
    InterpreterNotFound {
        /// The program.
        program: String,
        /// Its dynamic linker, or what its `#!` line names.
        interpreter: String,
    },
    /// The program is there and may not or cannot be run.
    #[error("{program}: cannot be run: {problem}")]
    NotExecutable {
        /// The program.
        program: String,
        /// Why.
        problem: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Reading what the process wrote, or waiting for it, failed.
    #[error("cannot {action} the sandboxed process")]
    Supervise {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A terminal is wanted where there is none.
    #[error("standard {stream} is no terminal, and a shell needs one")]
    NoTerminal {
        /// Which of the streams.
        stream: &'static str,
    },
    /// The user's terminal, or that of the sandbox, could not be used.
    #[error("cannot {action} a terminal for the sandboxed process")]
    Terminal {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The first process of the sandbox ended by itself, without telling how the process of the plan did.
    #[error("the sandbox ended without telling how its process did")]
    Vanished,
}

impl Error {
    /// Whether this machine is the cause, and not what the image holds or the caller asked for.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        !matches!(
            self,
            Self::Plan { .. }
                | Self::TooManyLayers { .. }
                | Self::Target { .. }
                | Self::WorkingDirectory { .. }
                | Self::MountSource { .. }
                | Self::ProgramNotFound { .. }
                | Self::InterpreterNotFound { .. }
                | Self::NotExecutable { .. }
                | Self::NoTerminal { .. }
        )
    }
}

impl Error {
    /// The exit status that a shell would give for this: 127 for what is not there, 126 for what cannot be run.
    #[must_use]
    pub fn exit_status(&self) -> Option<i32> {
        match self {
            Self::ProgramNotFound { .. } | Self::InterpreterNotFound { .. } => Some(127),
            Self::NotExecutable { .. } => Some(126),
            _ => None,
        }
    }
}

/// Declares the steps of the set-up with their words, so that no list of them can be incomplete.
macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident: $words:literal, $hint:literal;)*) => {
        /// A step of the set-up inside the new namespaces, in the order in which they are taken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Stage { $($(#[$doc])* $name,)* }

        impl Stage {
            const ALL: &'static [Self] = &[$(Self::$name,)*];

            fn words(self) -> (&'static str, &'static str) {
                match self { $(Self::$name => ($words, $hint),)* }
            }
        }
    };
}

stages! {
    /// Tying the life of the sandbox to that of this process.
    ParentDeath: "tie the sandbox to the life of its builder", "";
    /// Entering the control group.
    ControlGroup: "enter the control group of the step", "";
    /// Cutting the new mount namespace off from the host's.
    PrivateMounts: "make the sandbox's mounts private", "Linux 5.12 or newer is needed";
    /// Entering the network of the build.
    Network: "enter the build's network", "";
    /// Attaching what the sandbox adds to the root.
    AttachFittings: "attach the sandbox's own files", "";
    /// Attaching the root.
    AttachRoot: "attach the root file system", "";
    /// `/dev` and its device nodes.
    Devices: "set up /dev", "the host's own /dev must have null, zero, full, random, urandom and tty";
    /// `/dev/pts`.
    Terminals: "set up /dev/pts", "";
    /// `/dev/shm`.
    SharedMemory: "set up /dev/shm", "";
    /// `/dev/mqueue`.
    MessageQueues: "set up /dev/mqueue", "";
    /// `/proc`.
    Proc: "mount /proc", "where Strata itself runs in a container, its /proc must not be masked \
        (Docker: --security-opt systempaths=unconfined)";
    /// Hiding or protecting paths below `/proc`.
    MaskProc: "protect the host's settings below /proc", "";
    /// `/sys`.
    Sys: "mount /sys", "";
    /// Hiding paths below `/sys`.
    MaskSys: "hide the host's devices below /sys", "";
    /// The files laid over the root.
    Overlaid: "lay the sandbox's files over the root", "";
    /// What the plan mounts.
    Mounts: "mount what the step asks for", "";
    /// The loopback interface.
    Loopback: "set up the loopback interface", "";
    /// The host name.
    HostName: "set the sandbox's host name", "";
    /// Changing over to the new root.
    PivotRoot: "change over to the sandbox's root", "this does not work from an initial RAM file system";
    /// Standard input.
    StandardInput: "open /dev/null in the sandbox", "";
    /// Starting the process itself.
    Fork: "start a process in the sandbox", "the limit on processes may have been reached (ulimit -u, pids.max)";
    /// A session of its own.
    Session: "begin a session for the process", "";
    /// A keyring of its own.
    Keyring: "give the process a keyring of its own", "the quota kernel.keys.maxkeys may have been reached";
    /// Standard output and error.
    StandardOutput: "connect the output of the process", "";
    /// Descriptors.
    Descriptors: "keep the builder's descriptors from the process", "Linux 5.12 or newer is needed";
    /// The working directory.
    WorkingDirectory: "enter the working directory", "";
    /// The limits of the process.
    Ulimits: "set the limits of the process", "";
    /// The bounding set of capabilities.
    BoundingSet: "limit the capabilities of the process", "";
    /// Programs from outside the root.
    Landlock: "keep the process to the programs of its root", "";
    /// The AppArmor profile.
    AppArmor: "put the process under the AppArmor profile docker-default", "";
    /// The SELinux label.
    Selinux: "give the process the SELinux label container_t", "ausearch -m avc says what was denied";
    /// The filter of system calls.
    Seccomp: "install the filter of system calls", "the kernel needs CONFIG_SECCOMP_FILTER";
    /// Supplementary groups.
    Groups: "set the groups of the process", "the ids must be mapped: \
        add a range of ids for this user to /etc/subuid and /etc/subgid";
    /// User and group.
    User: "set the user and group of the process", "the ids must be mapped: \
        add a range of ids for this user to /etc/subuid and /etc/subgid";
    /// The remaining sets of capabilities.
    Capabilities: "set the capabilities of the process", "";
    /// Signals.
    Signals: "reset the signal mask of the process", "";
    /// The program itself.
    Execute: "run the program", "";
}

impl Stage {
    /// The number by which the child names it.
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    /// The step that the child named.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// What can be done about it, as the end of a message.
    fn hint(self, errno: Option<i32>) -> String {
        let (_, hint) = self.words();
        match (hint, errno) {
            ("", _) | (_, Some(libc::ENOMEM | libc::ENOSPC)) => String::new(),
            (hint, _) => format!(" ({hint})"),
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words().0)
    }
}

fn ulimit_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => {
            " (a hard limit can only be raised by root, with the capability CAP_SYS_RESOURCE, and nofile never above \
             the setting fs.nr_open)"
        }
        _ => "",
    }
}

fn detail(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

fn searched(path: Option<&str>) -> String {
    path.map_or_else(String::new, |path| format!(" (PATH is {path})"))
}

fn namespaces_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => " (the capability CAP_SYS_ADMIN is needed, as root or in a user namespace)",
        Some(libc::ENOSPC) => {
            " (a limit below /proc/sys/user, such as max_pid_namespaces or max_mnt_namespaces, is reached)"
        }
        Some(libc::EAGAIN) => " (the limit on processes is reached: ulimit -u, pids.max)",
        Some(libc::ENOSYS) => {
            " (Linux 5.12 or newer is needed, and a seccomp policy around Strata must let clone3 through)"
        }
        Some(libc::EINVAL) => {
            " (the kernel was built without one of the mount, pid, ipc, uts, cgroup and network namespaces)"
        }
        _ => "",
    }
}
