//! Locks: between threads, between processes, and after a death.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn threads_and_processes_exclude_each_other() {
    let fixture = Fixture::new();
    let number = fixture.directory.path().join("number");
    std::fs::write(&number, "0").unwrap();
    let processes: Vec<_> = (0..4).map(|_| respawn("count", &fixture.root()).spawn().unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| role::count(&fixture.root()));
        }
    });
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(std::fs::read_to_string(number).unwrap(), "200");
    assert!(names(&fixture.root().join("locks")).iter().all(|name| !name.ends_with(".lock")));
}

#[test]
fn two_threads_of_one_store_exclude_each_other() {
    let fixture = Fixture::new();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _lock = fixture.store.lock("a name / with anything", "test", &mut patient).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(names(&fixture.root().join("locks")), ["index", "open"], "only the store's own stay");
}

#[test]
fn who_waits_learns_for_whom_and_can_give_up() {
    let fixture = Fixture::new();
    let held = fixture.store.lock("step", "run make", &mut patient).unwrap();
    let mut seen = Vec::new();
    let outcome = fixture.reopen().lock("step", "run it too", &mut |owner| {
        seen.push(owner.clone());
        if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(outcome, Err(Error::Cancelled { purpose }) if purpose == "run it too"));
    let owner = LockOwner { pid: Some(std::process::id()), purpose: "run make".to_owned() };
    assert_eq!(seen, vec![owner; 3]);
    let other = fixture.store.lock("another step", "test", &mut |_| panic!("nobody has it")).unwrap();
    drop((held, other));
    let again = fixture.store.lock("step", "run it too", &mut |_| panic!("nobody has it")).unwrap();
    drop(again);
    assert_eq!(names(&fixture.root().join("locks")), ["index", "open"], "only the store's own stay");
}

#[test]
fn a_collection_waits_for_all_and_all_for_it() {
    let fixture = Fixture::new();
    let mut never = |_: &LockOwner| ControlFlow::Break(());
    let shares = [fixture.store.share(&mut never).unwrap(), fixture.reopen().share(&mut never).unwrap()];
    assert!(matches!(fixture.store.exclusive("collect", &mut never), Err(Error::Cancelled { .. })));
    drop(shares);
    let alone = fixture.store.exclusive("collect", &mut never).unwrap();
    let mut owner = None;
    let outcome = fixture.store.share(&mut |found| {
        owner = Some(found.clone());
        ControlFlow::Break(())
    });
    assert!(matches!(outcome, Err(Error::Cancelled { .. })));
    assert_eq!(owner.unwrap().purpose, "collect");
    drop(alone);
    drop(fixture.store.share(&mut never).unwrap());
}

#[test]
fn what_a_killed_process_held_is_free_and_swept() {
    let fixture = Fixture::new();
    let mut process = respawn("die", &fixture.root()).spawn().unwrap();
    wait_for(&fixture.directory.path().join("ready"));
    fixture.store.sweep().unwrap().wait();
    assert_eq!(fixture.count("tmp"), 2, "ours and the living process's");
    assert!(fixture.root().join("locks/step.lock").exists());
    process.kill().unwrap();
    process.wait().unwrap();

    let swept = fixture.store.sweep().unwrap().wait();
    assert!(swept.failures.is_empty(), "{:?}", swept.failures);
    assert_eq!(swept.removed, 1);
    assert_eq!(fixture.count("tmp"), 1, "ours");
    assert!(!fixture.root().join("locks/step.lock").exists());
    assert!(fixture.store.layer(&layer::id(b"killed")).unwrap().is_some(), "a kill loses nothing that was published");
    let mut never = |_: &LockOwner| ControlFlow::Break(());
    drop(fixture.store.exclusive("collect", &mut never).unwrap());
    drop(fixture.store.lock("step", "run make", &mut never).unwrap());
}
