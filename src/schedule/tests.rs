use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::graph::{ContextName, CopyOp, MkdirOp, Node, Op, Origin};
use crate::image::config::ImageConfig;
use crate::recipe::platform::Platform;

fn graph(ops: Vec<Op>) -> Graph {
    let target = NodeId(ops.len() - 1);
    Graph {
        nodes: ops.into_iter().map(|op| Node::new(op, Origin::default())).collect(),
        target,
        config: ImageConfig::default(),
        base: None,
        base_history: 0,
        epoch: None,
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None, os_version: None },
    }
}

fn mkdir(parent: usize, path: &str) -> Op {
    Op::Mkdir(MkdirOp { parent: NodeId(parent), path: path.into(), user: String::new(), epoch: None })
}

fn copy(parent: usize, from: usize) -> Op {
    Op::Copy(CopyOp {
        parent: NodeId(parent),
        from: NodeId(from),
        sources: Vec::new(),
        destination: "/".into(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
        epoch: None,
    })
}

/// Solves a node by noting that it was solved after its inputs.
#[derive(Default)]
struct Fake {
    order: Mutex<Vec<usize>>,
    running: AtomicUsize,
    most: AtomicUsize,
    pause: Option<Duration>,
    fails: Option<usize>,
    cancelled: AtomicBool,
}

impl Solve for Fake {
    type Output = usize;
    type Error = usize;

    fn solve(&self, node: NodeId, _inputs: Vec<usize>) -> Result<usize, usize> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        if let Some(pause) = self.pause {
            std::thread::sleep(pause);
        }
        self.order.lock().unwrap().push(node.0);
        self.running.fetch_sub(1, Ordering::SeqCst);
        if self.fails == Some(node.0) { Err(node.0) } else { Ok(node.0) }
    }

    fn cancel(&self) {
        assert!(!self.cancelled.swap(true, Ordering::SeqCst), "cancelled twice");
    }
}

#[test]
fn independent_nodes_run_at_once() {
    let mut ops = vec![Op::Scratch];
    ops.extend((0..8).map(|n| mkdir(0, &format!("/{n}"))));
    let fake = Fake { pause: Some(Duration::from_millis(50)), ..Fake::default() };
    run(&graph(ops), &fake, 16).unwrap();
    assert_eq!(fake.most.load(Ordering::SeqCst), 8);
}

#[test]
fn slots_are_a_bound() {
    let mut ops = vec![Op::Scratch];
    ops.extend((0..20).map(|n| mkdir(0, &format!("/{n}"))));
    let fake = Fake { pause: Some(Duration::from_millis(2)), ..Fake::default() };
    run(&graph(ops), &fake, 3).unwrap();
    assert!(fake.most.load(Ordering::SeqCst) <= 3);
}

#[test]
fn the_first_failure_is_the_result_and_starts_nothing_new() {
    let ops = vec![Op::Scratch, mkdir(0, "/a"), mkdir(1, "/b"), mkdir(2, "/c")];
    let fake = Fake { fails: Some(1), ..Fake::default() };
    assert_eq!(run(&graph(ops), &fake, 4), Err(1));
    assert!(fake.cancelled.load(Ordering::SeqCst));
    assert_eq!(*fake.order.lock().unwrap(), [0, 1]);
}

#[test]
fn a_panic_goes_on_at_the_caller() {
    struct Panics;
    impl Solve for Panics {
        type Output = ();
        type Error = ();
        fn solve(&self, _node: NodeId, _inputs: Vec<()>) -> Result<(), ()> {
            panic!("solver broke");
        }
        fn cancel(&self) {}
    }
    let graph = graph(vec![Op::Scratch, Op::Context(ContextName::Main)]);
    let panic = catch_unwind(|| run(&graph, &Panics, 2)).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"solver broke"));
}

proptest! {
    #[test]
    fn no_node_runs_before_its_inputs(picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..60), slots in 1usize..9) {
        let mut ops = vec![Op::Scratch];
        for (a, b) in picks {
            let op = copy(a.index(ops.len()), b.index(ops.len()));
            ops.push(op);
        }
        let graph = graph(ops);
        let fake = Fake::default();
        let results = run(&graph, &fake, slots).unwrap();
        prop_assert_eq!(results, (0..graph.nodes.len()).collect::<Vec<_>>());
        let order = fake.order.into_inner().unwrap();
        let place: BTreeMap<usize, usize> = order.iter().enumerate().map(|(place, node)| (*node, place)).collect();
        for (node, value) in graph.nodes.iter().enumerate() {
            for input in value.op.inputs() {
                prop_assert!(place[&input.0] < place[&node]);
            }
        }
    }
}
