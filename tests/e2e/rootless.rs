//! The same for users who are not root.
//!
//! `scripts/setup --user` makes two: [`RANGES`] has subordinate ids, as Debian's `adduser` gives them, and builds whatever
//! root builds; [`SINGLE`] has none, and builds what one id is enough for. The tests are root and become them.

use crate::layout;
use crate::registry::shared;
use crate::skip::{is_root, skip};
use crate::workspace::{Who, Workspace};

/// The user with ranges in `/etc/subuid` and `/etc/subgid`.
pub(crate) const RANGES: &str = "strata-test";

/// The user without.
pub(crate) const SINGLE: &str = "strata-single";

/// The user of this name, unless the tests cannot become them; then the skip is announced.
pub(crate) fn user(name: &str, what: &str) -> Option<Who> {
    if !is_root() {
        skip(what, "becoming another user takes root");
        return None;
    }
    let who = Who::named(name);
    if who.is_none() {
        skip(what, &format!("there is no user {name}; `scripts/setup --user` makes it"));
    }
    who
}

#[test]
fn every_case_as_a_user_with_ranges() {
    let Some(who) = user(RANGES, "rootless: cases with ranges") else { return };
    assert!(crate::cases::run_all_as(&who) > 100);
}

#[test]
fn cases_as_a_user_with_a_single_id() {
    let Some(who) = user(SINGLE, "rootless: cases with a single id") else { return };
    assert!(crate::cases::run_all_as(&who) > 100);
}

#[test]
fn caching_works_and_the_state_is_the_user_s() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "rootless: caching") else { return };
        let workspace = Workspace::of(who);
        workspace.dockerfile("ARG BASE\nFROM ${BASE}\nCOPY a.txt /\nRUN echo ran-\"step\" && rm /etc/os-release\n");
        workspace.write("a.txt", "a\n");
        let build = || workspace.build([&shared().base_argument(), "-t", "x"]).run().success();
        assert_eq!(build().count("ran-step"), 1, "{name}");
        assert_eq!(build().count("ran-step"), 0, "{name}");
        workspace.write("a.txt", "b\n");
        assert_eq!(build().count("ran-step"), 1, "{name}");
        workspace.assert_nothing_left();
    }
}

#[test]
fn root_and_users_make_the_same_image() {
    let mut digests = Vec::new();
    for name in [None, Some(RANGES), Some(SINGLE)] {
        let who = match name {
            None => Who::Caller,
            Some(name) => {
                let Some(who) = user(name, "rootless: same image as root") else { return };
                who
            }
        };
        let workspace = Workspace::of(who);
        workspace.dockerfile(
            "ARG BASE\nFROM ${BASE}\nCOPY . /all/\nRUN mkdir /d && echo x >/d/x && ln /d/x /d/h && rm -r /home\nWORKDIR /w\n",
        );
        workspace.write("sub/a.txt", "a\n");
        let build = workspace.build([shared().base_argument(), workspace.layout_output("image")]);
        build.env("SOURCE_DATE_EPOCH", "1600000000").run().success();
        digests.push((workspace.who().clone(), layout::read(&workspace.out("image")).digest));
    }
    assert!(digests.iter().all(|(_, digest)| *digest == digests[0].1), "{digests:#?}");
}

#[test]
fn a_step_is_root_in_its_own_sandbox_only() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "rootless: root inside") else { return };
        let workspace = Workspace::of(who);
        workspace.dockerfile(
            "ARG BASE\nFROM ${BASE}\nRUN id -u >/id && cat /proc/self/uid_map >/map && ! cat /etc/shadow && ! mknod /sda b 8 0\n",
        );
        workspace.build([shared().base_argument(), workspace.layout_output("image")]).run().success();
        let image = layout::read(&workspace.out("image"));
        assert_eq!(image.text("id"), "0\n");
        let Who::User { uid, .. } = workspace.who() else { unreachable!("a user was asked for") };
        let first: Vec<String> = image.text("map").split_whitespace().take(2).map(str::to_owned).collect();
        assert_eq!(first, ["0".to_owned(), uid.to_string()], "id 0 inside is the user outside");
    }
}

#[test]
fn signals_leave_nothing() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "rootless: signals") else { return };
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
            let workspace = Workspace::of(who.clone());
            workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN echo now-\"sleeping\"; sleep 3600\n");
            let mut running = workspace.build([&shared().base_argument(), "-t", "x"]).start();
            running.wait_for("now-sleeping");
            running.signal(signal);
            let finished = running.wait();
            assert_ne!(finished.code(), Some(0), "{}", finished.describe());
            workspace.assert_nothing_left();
            workspace.assert_store_usable();
        }
    }
}

#[test]
fn a_state_directory_of_somebody_else_s_is_named() {
    let Some(who) = user(SINGLE, "rootless: unwritable state directory") else { return };
    let workspace = Workspace::of(who);
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let closed = workspace.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let build = workspace.build(["-t", "x"]).env("STRATA_ROOT", closed.join("state"));
    build.run().fails(3, &[closed.to_str().unwrap(), "ermission denied"]);
}

#[test]
fn the_state_directory_is_below_the_home_where_nothing_is_said() {
    let Some(who) = user(RANGES, "rootless: default state directory") else { return };
    let workspace = Workspace::of(who);
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    workspace.build(["-t", "x"]).env("STRATA_ROOT", "").run().success();
    assert!(workspace.path().join("home/.local/share/strata/oci/index.json").is_file());
}
