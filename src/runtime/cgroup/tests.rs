use std::collections::{BTreeMap, BTreeSet};

use super::hierarchy::{Controller, Hierarchy};
use super::plan::{Setting, plan};
use super::*;
use crate::limits::{Bandwidth, Swap};

const HYBRID: &str = "\
25 24 0:22 / /sys rw,relatime - sysfs sysfs rw
30 25 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:31 / /sys/fs/cgroup/with\\040space rw,relatime - cgroup cgroup rw,pids
34 30 0:32 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
35 30 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
36 1 0:30 / /chroot/sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
";
const HYBRID_OWN: &str = "\
5:name=systemd:/x
4:pids:/
3:memory:/a/b
2:cpu,cpuacct:/user
0::/
";

fn hierarchy(mount: &str, own: &str, controllers: &[Controller]) -> Hierarchy {
    Hierarchy { mount: mount.into(), own: own.into(), controllers: controllers.to_vec() }
}

#[test]
fn hierarchies_are_read_from_the_kernel_s_tables() {
    let cgroup = "/sys/fs/cgroup";
    let read = Hierarchies::parse(HYBRID, HYBRID_OWN);
    let v1 = [
        hierarchy("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/user", &[Controller::Cpu]),
        hierarchy("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b", &[Controller::Memory]),
        hierarchy("/sys/fs/cgroup/with space", "/sys/fs/cgroup/with space/", &[Controller::Pids]),
    ];
    assert_eq!(read.v1, v1);
    assert_eq!(read.v2, Some(hierarchy("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/", &[])));
    let unified = |root: &str, own: &str| {
        let line = format!("30 25 0:28 {root} {cgroup} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        Hierarchies::parse(&line, &format!("0::{own}\n")).v2.unwrap().own
    };
    assert_eq!(unified("/", "/user.slice/u"), Path::new("/sys/fs/cgroup/user.slice/u"));
    // A container that shares the host's namespace sees a part of the hierarchy, and the host's names.
    assert_eq!(unified("/docker/1", "/docker/1/x"), Path::new("/sys/fs/cgroup/x"));
    // Outside what is mounted, or outside the namespace.
    assert_eq!(unified("/docker/1", "/other"), Path::new(cgroup));
    assert_eq!(unified("/", "/../other"), Path::new(cgroup));
    assert_eq!(Hierarchies::parse("", ""), Hierarchies::default());
}

fn limits() -> Limits {
    Limits {
        memory: Some(512 << 20),
        processor_time: Some(Bandwidth { quota: Some(150_000), period: 100_000 }),
        pids: Some(Pids::Most(63)),
        ..Limits::default()
    }
}

#[test]
fn limits_become_texts_of_both_versions() {
    let set = |file, text: &str| Setting::new(file, text);
    let maybe = |file, text: &str| Setting::where_possible(file, text);
    let swap = |swap| Limits { memory_swap: Some(swap), ..limits() };
    let more = Limits {
        cpu_shares: Some(1024),
        cpuset_cpus: Some("0-1".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        processor_time: Some(Bandwidth { quota: None, period: 5000 }),
        pids: Some(Pids::Unlimited),
        ..Limits::default()
    };
    let (memory, cpu, cpuset, pids) = (Controller::Memory, Controller::Cpu, Controller::Cpuset, Controller::Pids);
    let (limit, swap_limit) = (set("memory.limit_in_bytes", "536870912"), "memory.memsw.limit_in_bytes");
    for (controller, limits, one, two) in [
        (
            memory,
            limits(),
            vec![limit.clone(), maybe(swap_limit, "1073741824")],
            vec![set("memory.max", "536870912"), maybe("memory.swap.max", "536870912")],
        ),
        (
            memory,
            swap(Swap::Total(512 << 20)),
            vec![limit.clone(), set(swap_limit, "536870912")],
            vec![set("memory.max", "536870912"), set("memory.swap.max", "0")],
        ),
        (
            memory,
            swap(Swap::Unlimited),
            vec![limit, maybe(swap_limit, "-1")],
            vec![set("memory.max", "536870912"), maybe("memory.swap.max", "max")],
        ),
        (
            cpu,
            limits(),
            vec![set("cpu.cfs_period_us", "100000"), set("cpu.cfs_quota_us", "150000")],
            vec![set("cpu.max", "150000 100000")],
        ),
        (
            cpu,
            more.clone(),
            vec![set("cpu.cfs_period_us", "5000"), set("cpu.cfs_quota_us", "-1"), set("cpu.shares", "1024")],
            vec![set("cpu.max", "max 5000"), set("cpu.weight", "39")],
        ),
        // The sandbox's own first process is not one of the step's.
        (pids, limits(), vec![set("pids.max", "64")], vec![set("pids.max", "64")]),
        (pids, more.clone(), vec![], vec![]),
        (
            cpuset,
            more,
            vec![set("cpuset.cpus", "0-1"), set("cpuset.mems", "0")],
            vec![set("cpuset.cpus", "0-1"), set("cpuset.mems", "0")],
        ),
        (cpuset, limits(), vec![], vec![]),
    ] {
        assert_eq!(v1::settings(controller, &limits), one);
        assert_eq!(v2::settings(controller, &limits), two);
    }
}

/// Files by path, and what may be written.
#[derive(Default)]
struct Tree {
    files: BTreeMap<PathBuf, String>,
    closed: BTreeSet<PathBuf>,
}

impl Tree {
    /// A group of version 2: its controllers, those it hands down, its processes.
    fn group(mut self, path: &str, available: &str, handed_down: &str, processes: &str) -> Self {
        let files = [
            ("cgroup.controllers", available),
            ("cgroup.subtree_control", handed_down),
            ("cgroup.procs", processes),
            ("cgroup.type", "domain"),
        ];
        for (file, text) in files {
            self.files.insert(Path::new(path).join(file), text.to_owned());
        }
        if path == "/cg" {
            self.files.remove(Path::new("/cg/cgroup.type"));
        }
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.to_owned());
        self
    }

    /// Belongs to somebody else.
    fn closed(mut self, paths: &[&str]) -> Self {
        self.closed.extend(paths.iter().map(PathBuf::from));
        self
    }
}

impl Look for Tree {
    fn read(&self, path: &Path) -> Option<String> {
        self.files.get(path).cloned()
    }

    fn may_write(&self, path: &Path) -> bool {
        let is_file = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cgroup."));
        let of_closed = is_file && path.parent().is_some_and(|parent| self.closed.contains(parent));
        !self.closed.contains(path) && !of_closed
    }

    fn own_pid(&self) -> String {
        "77".to_owned()
    }
}

/// The actions, one a line.
fn planned(hierarchies: &Hierarchies, limits: &Limits, tree: &Tree) -> Result<String, String> {
    let planned =
        plan(hierarchies, limits, &Asked::of(limits), "new", tree).map_err(|error| format!("{error:?}: {error}"))?;
    let line = |action: &Action| match action {
        Action::Parent(path) => format!("parent {}", path.display()),
        Action::Leave(path) => format!("leave {}", path.display()),
        Action::Group(path, _) => format!("group {}", path.display()),
        Action::Write { path, text, .. } => format!("{}={text}", path.display()),
    };
    Ok(planned.actions.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn unified(own: &str) -> Hierarchies {
    Hierarchies { v1: Vec::new(), v2: Some(hierarchy("/cg", own, &[])) }
}

#[test]
fn version_two_finds_the_nearest_group_that_will_do() {
    let limits = Limits { memory: Some(6 << 20), ..Limits::default() };
    let all = "cpuset cpu io memory pids";
    let check = |own: &str, tree: Tree, expected: &str| {
        let got = planned(&unified(own), &limits, &tree);
        let got = got.unwrap_or_else(|error| error);
        let group = expected.lines().last().unwrap().trim_start_matches("group ");
        let limits = format!("{group}/memory.max=6291456\n{group}/memory.swap.max=6291456");
        assert_eq!(got, format!("{expected}\n{limits}"), "{own}");
    };
    // The root may hold processes and hand down.
    check("/cg", Tree::default().group("/cg", all, "", "1\n77\n"), "/cg/cgroup.subtree_control=+memory\ngroup /cg/new");
    check("/cg", Tree::default().group("/cg", all, "memory", "1\n77\n"), "group /cg/new");
    // A group that hands down already.
    let tree = Tree::default().group("/cg", all, all, "").group("/cg/a", all, "memory pids", "");
    check("/cg/a", tree, "group /cg/a/new");
    // Alone in it: out of the way first.
    let tree = Tree::default().group("/cg", all, all, "").group("/cg/a", all, "", "77\n");
    check("/cg/a", tree, "leave /cg/a/new0\n/cg/a/cgroup.subtree_control=+memory\ngroup /cg/a/new");
    // With others in it: beside it.
    let tree = Tree::default().group("/cg", all, all, "").group("/cg/user", "memory pids", "pids", "").group(
        "/cg/user/scope",
        "pids",
        "",
        "76\n77\n",
    );
    check("/cg/user/scope", tree, "/cg/user/cgroup.subtree_control=+memory\ngroup /cg/user/new");
    // A user's, of which the upper part is root's.
    let tree = Tree::default()
        .group("/cg", all, all, "")
        .group("/cg/user", all, all, "")
        .group("/cg/user/app", all, "memory", "")
        .group("/cg/user/app/scope", all, "", "76\n77\n")
        .closed(&["/cg", "/cg/user"]);
    check("/cg/user/app/scope", tree, "group /cg/user/app/new");
}

#[test]
fn what_version_two_cannot_do_is_said() {
    let all = "cpuset cpu io memory pids";
    // A login session: root's group.
    let tree = Tree::default().group("/cg", all, all, "").group("/cg/session", "memory pids", "", "76\n77\n");
    let tree = tree.closed(&["/cg", "/cg/session"]);
    let error = planned(&unified("/cg/session"), &limits(), &tree).unwrap_err();
    assert!(error.contains("NotDelegated") && error.contains("/cg/session"), "{error}");
    assert!(error.contains("--memory and --cpus and --pids-limit") && error.contains("systemd-run --user"), "{error}");
    // Delegated, but shared with others, and nothing above is.
    let tree = Tree::default().group("/cg", all, all, "").group("/cg/x", all, "", "76\n77\n").closed(&["/cg"]);
    assert!(planned(&unified("/cg/x"), &limits(), &tree).unwrap_err().contains("NotDelegated"));
    // Only the directory is.
    let tree = Tree::default().group("/cg", all, all, "").closed(&["/cg/cgroup.procs"]);
    assert!(planned(&unified("/cg"), &limits(), &tree).unwrap_err().contains("NotDelegated"));
    // A kernel that booted without.
    let tree = Tree::default().group("/cg", "cpuset cpu pids", "cpuset cpu pids", "");
    let error = planned(&unified("/cg"), &limits(), &tree).unwrap_err();
    assert!(error.contains("NoController") && error.contains("cgroup_enable=memory"), "{error}");
    assert!(error.contains("/cg/cgroup.controllers"), "{error}");
    // No control groups at all.
    let error = planned(&Hierarchies::default(), &limits(), &Tree::default()).unwrap_err();
    assert!(error.contains("NoController"), "{error}");
}

#[test]
fn what_is_usable_is_decided_as_for_a_run() {
    let all = "cpuset cpu io memory pids";
    let usable = |hierarchies: &Hierarchies, tree: &Tree| {
        let usable = Usable::of(hierarchies, tree);
        let words = usable.controllers.iter().map(|(controller, outcome)| {
            let outcome = outcome.as_ref().map_or_else(|error| format!("{error:?}"), |()| "yes".to_owned());
            format!("{controller}: {}", outcome.split(' ').next().unwrap_or_default())
        });
        format!("{}; {}", usable.versions, words.collect::<Vec<_>>().join(", "))
    };
    let tree = Tree::default().group("/cg", all, "", "1\n77\n");
    assert_eq!(usable(&unified("/cg"), &tree), "version 2; memory: yes, cpu: yes, pids: yes");
    // What systemd delegates to users where nobody has said more.
    let tree = Tree::default()
        .group("/cg", all, all, "")
        .group("/cg/user", "memory pids", "memory pids", "")
        .group("/cg/user/scope", "memory pids", "", "76\n77\n")
        .closed(&["/cg"]);
    assert_eq!(usable(&unified("/cg/user/scope"), &tree), "version 2; memory: yes, cpu: NotDelegated, pids: yes");
    let one = Hierarchies { v1: vec![hierarchy("/one", "/one", &[Controller::Memory])], v2: None };
    let tree = Tree::default().file("/one/cgroup.procs", "1\n");
    assert_eq!(usable(&one, &tree), "version 1; memory: yes, cpu: NoController, pids: NoController");
    assert_eq!(
        usable(&one, &tree.closed(&["/one"])),
        "version 1; memory: VersionOne, cpu: NoController, pids: NoController"
    );
    let nothing = usable(&Hierarchies::default(), &Tree::default());
    assert_eq!(nothing, "none; memory: NoController, cpu: NoController, pids: NoController");
}

#[test]
fn a_named_parent_is_made_and_told_to_hand_down() {
    let all = "cpuset cpu io memory pids";
    let named = |limits: Limits| Limits { cgroup_parent: Some("a/b".into()), ..limits };
    let tree = || Tree::default().group("/cg", all, "memory", "1\n");
    let limits = Limits { pids: Some(Pids::Most(1)), ..Limits::default() };
    assert_eq!(
        planned(&unified("/cg/elsewhere"), &named(limits), &tree()).unwrap(),
        "/cg/cgroup.subtree_control=+pids\nparent /cg/a\n/cg/a/cgroup.subtree_control=+pids\nparent /cg/a/b\n\
         /cg/a/b/cgroup.subtree_control=+pids\ngroup /cg/a/b/new\n/cg/a/b/new/pids.max=2"
    );
    assert_eq!(
        planned(&unified("/cg/elsewhere"), &named(Limits::default()), &tree()).unwrap(),
        "parent /cg/a\nparent /cg/a/b\ngroup /cg/a/b/new"
    );
    let error = planned(&unified("/cg"), &named(Limits::default()), &tree().closed(&["/cg"])).unwrap_err();
    assert!(error.contains("--cgroup-parent cannot be set"), "{error}");
}

#[test]
fn version_one_is_used_for_what_it_has() {
    let memory = hierarchy("/m", "/m/own", &[Controller::Memory]);
    let pids = hierarchy("/p", "/p", &[Controller::Pids]);
    let cpuset = hierarchy("/s", "/s/own", &[Controller::Cpuset]);
    let v2 = Some(hierarchy("/cg", "/cg", &[]));
    let hybrid = Hierarchies { v1: vec![memory, pids, cpuset], v2 };
    let tree = || {
        let tree = Tree::default().group("/cg", "cpu", "cpu", "1\n77\n");
        let tree = tree.file("/m/own/cgroup.procs", "").file("/p/cgroup.procs", "").file("/s/own/cgroup.procs", "");
        let tree = tree.file("/s/own/cpuset.cpus", "0-7\n").file("/s/own/cpuset.mems", "0\n");
        tree.file("/s/cpuset.cpus", "0-15\n").file("/s/cpuset.mems", "0-1\n")
    };
    assert_eq!(
        planned(&hybrid, &limits(), &tree()).unwrap(),
        "group /m/own/new\n/m/own/new/memory.limit_in_bytes=536870912\n/m/own/new/memory.memsw.limit_in_bytes=1073741824\n\
         group /p/new\n/p/new/pids.max=64\ngroup /cg/new\n/cg/new/cpu.max=150000 100000"
    );
    let pinned = Limits { cpuset_cpus: Some("1".to_owned()), ..Limits::default() };
    let filled = "/s/own/new/cpuset.cpus=0-7\n/s/own/new/cpuset.mems=0\n";
    assert_eq!(
        planned(&hybrid, &pinned, &tree()).unwrap(),
        format!("group /s/own/new\n{filled}/s/own/new/cpuset.cpus=1")
    );
    // Everything that is known is put below a parent that is named; new groups need processors.
    let named = Limits { cgroup_parent: Some("x".into()), ..Limits::default() };
    assert_eq!(
        planned(&hybrid, &named, &tree()).unwrap(),
        "parent /m/x\ngroup /m/x/new\nparent /p/x\ngroup /p/x/new\n\
         parent /s/x\n/s/x/cpuset.cpus=0-15\n/s/x/cpuset.mems=0-1\ngroup /s/x/new\n/s/x/new/cpuset.cpus=0-15\n\
         /s/x/new/cpuset.mems=0-1\nparent /cg/x\ngroup /cg/x/new"
    );
    let error = planned(&hybrid, &limits(), &tree().closed(&["/m/own"])).unwrap_err();
    assert!(error.contains("version 1, which only root can use"), "{error}");
}

#[test]
fn events_are_counted() {
    for (text, key, expected) in [
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill", Some(3)),
        ("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n", "oom_kill", Some(1)),
        ("max 2\n", "max", Some(2)),
        ("oom_kill_disable 1\n", "oom_kill", None),
        ("", "max", None),
    ] {
        assert_eq!(count(text, key), expected, "{text:?}");
    }
}

#[test]
fn a_plan_is_carried_out_on_files() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(base.join("cgroup.subtree_control"), "").unwrap();
    let write = |path: PathBuf, optional| Action::Write { path, text: "+memory".to_owned(), optional };
    let (parent, group) = (base.join("parent"), base.join("parent/group"));
    let actions = vec![
        write(base.join("cgroup.subtree_control"), false),
        write(base.join("not-there"), true),
        Action::Parent(base.clone()),
        Action::Parent(parent.clone()),
        Action::Group(group.clone(), Version::Two),
    ];
    let made = Group::carry_out(Planned { actions, places: Vec::new() }).unwrap();
    assert_eq!(std::fs::read_to_string(base.join("cgroup.subtree_control")).unwrap(), "+memory");
    assert!(made.unified().is_some() && made.procs().is_empty() && group.is_dir());
    assert_eq!(made.reached(), Reached::default());
    std::fs::write(group.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    std::fs::write(group.join("pids.events"), "max 1\n").unwrap();
    assert_eq!(made.reached(), Reached { memory: true, pids: true });
    // The kernel's files go with their directory, these do not.
    std::fs::remove_file(group.join("memory.events")).unwrap();
    std::fs::remove_file(group.join("pids.events")).unwrap();
    drop(made);
    assert!(base.is_dir() && !parent.exists(), "what was made is gone, what was there is not");
    let missing = Planned { actions: vec![write(base.join("not-there"), false)], places: Vec::new() };
    let error = Group::carry_out(missing).unwrap_err().to_string();
    assert!(error.contains("\"+memory\"") && error.contains("not-there"), "{error}");
}

#[test]
fn groups_of_the_dead_are_swept_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let this = Owner::of_this_process().unwrap();
    let own = this.next_name();
    let mut parts: Vec<_> = own.split('-').map(str::to_owned).collect();
    parts[2] = "4194305".to_owned();
    let dead = parts.join("-");
    for name in [own.as_str(), dead.as_str(), "docker", "strata-of-somebody"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    sweep_directory(directory.path(), &this);
    let left: BTreeSet<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["docker", "strata-of-somebody", own.as_str()].map(Into::into).into());
}
