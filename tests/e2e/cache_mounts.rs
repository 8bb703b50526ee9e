//! `strata cache-mounts ls|rm|export|import`.

use std::ffi::OsStr;
use std::fs;

use serde_json::Value;

use crate::layout;
use crate::registry::shared;
use crate::rootless::{RANGES, SINGLE, user};
use crate::workspace::{Finished, Workspace};

fn cache_mounts(workspace: &Workspace, arguments: &[&str]) -> Finished {
    workspace.strata([&["cache-mounts"], arguments].concat()).run()
}

fn listed(workspace: &Workspace) -> Vec<Value> {
    let text = cache_mounts(workspace, &["ls", "--format", "json"]).success().stdout;
    serde_json::from_str(&text).unwrap()
}

fn ids(workspace: &Workspace) -> Vec<String> {
    listed(workspace).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Fills two caches.
fn fill(workspace: &Workspace) {
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\n\
         RUN --mount=type=cache,id=packages,target=/p,mode=0700 echo kept >/p/f && mkdir /p/d && ln /p/f /p/d/g\n\
         RUN --mount=type=cache,target=/root/.cache echo other >/root/.cache/f\n",
    );
    workspace.build(["-t", "x", &shared().base_argument()]).run().success();
}

#[test]
fn caches_are_listed_and_removed() {
    let workspace = Workspace::new();
    assert_eq!(listed(&workspace), Vec::<Value>::new());
    fill(&workspace);
    assert_eq!(ids(&workspace), ["/root/.cache", "packages"]);
    let row = &listed(&workspace)[1];
    assert_eq!(row["copies"], 1);
    assert!(row["platform"].as_str().unwrap().starts_with("linux/"), "{row}");
    assert!(row["size"].is_u64() && row["lastUsed"].as_str().unwrap().ends_with('Z'), "{row}");
    let table = cache_mounts(&workspace, &["ls"]).success().stdout;
    assert!(table.starts_with("ID") && table.contains("packages") && table.contains(" ago"), "{table}");

    cache_mounts(&workspace, &["rm"]).fails(2, &["<ID>"]);
    cache_mounts(&workspace, &["rm", "packages", "--all"]).fails(2, &["--all"]);
    cache_mounts(&workspace, &["rm", "packages", "package"]).fails(1, &["package", "did you mean packages?"]);
    cache_mounts(&workspace, &["rm", "packages", "--platform", "linux/s390x"]).fails(1, &["packages"]);
    assert_eq!(ids(&workspace).len(), 2, "nothing is removed where something is not there");
    cache_mounts(&workspace, &["rm", "packages"]).success();
    assert_eq!(ids(&workspace), ["/root/.cache"]);
    cache_mounts(&workspace, &["rm", "--all"]).success();
    assert_eq!(listed(&workspace), Vec::<Value>::new());
    workspace.assert_nothing_left();
}

#[test]
fn a_cache_that_a_build_uses_is_left_alone() {
    let workspace = Workspace::new();
    fill(&workspace);
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\nRUN --mount=type=cache,id=packages,target=/p echo now-\"waiting\" && sleep 5 && cat /p/f\n",
    );
    let mut running = workspace.build(["-t", "x", &shared().base_argument()]).start();
    running.wait_for("now-waiting");
    cache_mounts(&workspace, &["rm", "packages"]).fails(1, &["in use"]);
    let archive = workspace.out("archive.tar");
    cache_mounts(&workspace, &["export", "--all", "-o", archive.to_str().unwrap()]).fails(1, &["in use"]);
    assert!(!archive.exists());
    assert_eq!(ids(&workspace).len(), 2);
    running.wait().success();
}

/// Carries the caches of one store to another, where a step finds them.
fn carry(here: &Workspace, there: &Workspace) {
    fill(here);
    let archive = here.out("archive.tar");
    let path = archive.to_str().unwrap();
    cache_mounts(here, &["export", "--all", "-o", path]).success();
    let bytes = fs::read(&archive).unwrap();
    cache_mounts(here, &["export", "packages", "/root/.cache", "-o", path]).success();
    assert_eq!(fs::read(&archive).unwrap(), bytes, "the same bytes");
    assert_eq!(fs::read_dir(archive.parent().unwrap()).unwrap().count(), 1, "nothing beside it");

    there.strata([OsStr::new("cache-mounts"), OsStr::new("import"), OsStr::new("-")]).stdin(bytes).run().success();
    assert_eq!(ids(there), ["/root/.cache", "packages"]);
    there.dockerfile(
        "ARG BASE\nFROM ${BASE}\n\
         RUN --mount=type=cache,id=packages,target=/p stat -c %a /p >/out && stat -c %h /p/f >>/out && cat /p/d/g >>/out && echo new >/p/f\n",
    );
    there.build([&shared().base_argument(), &there.layout_output("image")]).run().success();
    let image = layout::read(&there.out("image"));
    assert_eq!(image.text("out"), "700\n2\nkept\n");
    // Over what is there: it is replaced.
    cache_mounts(there, &["import", path]).success();
    fs::remove_dir_all(there.out("image")).unwrap();
    there.build(["--no-cache", &shared().base_argument(), &there.layout_output("image")]).run().success();
    assert_eq!(layout::read(&there.out("image")).text("out"), "700\n2\nkept\n");
    there.assert_nothing_left();
}

#[test]
fn caches_are_carried_from_one_store_to_another() {
    carry(&Workspace::new(), &Workspace::new());
}

#[test]
fn ordinary_users_carry_theirs() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "rootless: carrying cache mounts") else { return };
        carry(&Workspace::of(who.clone()), &Workspace::of(who));
    }
}

#[test]
fn what_is_no_archive_of_caches_is_refused() {
    let workspace = Workspace::new();
    cache_mounts(&workspace, &["import", "/no/such/file"]).fails(2, &["/no/such/file"]);
    let text = workspace.write("text", "text".repeat(1000));
    cache_mounts(&workspace, &["import", text.to_str().unwrap()]).fails(1, &["no archive of cache mounts"]);
    cache_mounts(&workspace, &["export", "--all", "-o", "/no/such/directory/f"]).fails(3, &["/no/such/directory/f"]);
    assert_eq!(listed(&workspace), Vec::<Value>::new());
}
