//! The tree that a storm goes through: its shape, and which of its contexts is what.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mitogen::{Context, Router, stock};
use tempfile::TempDir;

use crate::support::*;

/// Contexts that may be on the way to another, with that.
const DEPTH_MAX: usize = 8;
/// The name in `ps` of the stock agents.
const TITLE: &str = "mitogen:storm";
/// What the copies of this binary run.
const ENTRY: &str = "storm::mitogen_agent";

/// Numbers that a seed makes.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    pub fn one_of(&mut self, all: &[usize]) -> Option<usize> {
        (!all.is_empty()).then(|| all[self.below(all.len())])
    }
}

pub struct Node {
    pub context: Context,
    /// None is the master.
    pub parent: Option<usize>,
    pub depth: usize,
    /// Whether it is a copy of this binary, else a stock agent.
    pub is_copy: bool,
    pub pid: u32,
}

/// A tree. A parent's number is below those of its children.
pub struct Tree {
    pub nodes: Vec<Node>,
    pub router: Router,
    /// The scripts of [`wrappers`].
    _folder: TempDir,
}

impl Tree {
    /// A tree of this seed's shape, whose contexts are up.
    pub fn grow(seed: u64, contexts: usize) -> Tree {
        let router = super::mitogen_test_program().router().unwrap();
        let (folder, mut random) = (tempfile::tempdir().unwrap(), Random(seed));
        let [stock, copy] = wrappers(&folder);
        let mut shape: Vec<(Option<usize>, usize, Option<bool>)> = Vec::new();
        for at in 0..contexts {
            // One in eight is the master's own.
            let others = 0 < at && 0 < random.below(8);
            let parent = others.then(|| random.below(at).max(random.below(at)));
            let parent = parent.filter(|parent| shape[*parent].1 < DEPTH_MAX);
            let depth = parent.map_or(1, |p| shape[p].1 + 1);
            let is_copy = [None, Some(false), Some(true), Some(true)][random.below(4)];
            shape.push((parent, depth, is_copy));
        }
        let mut contexts: Vec<Option<Context>> = vec![None; shape.len()];
        for level in 1..=DEPTH_MAX {
            let of_level = (0..shape.len()).filter(|at| shape[*at].1 == level);
            let starting = of_level.map(|at| {
                let (parent, _, is_copy) = shape[at];
                let mut local = router.local();
                if let Some(is_copy) = is_copy {
                    local = local.wrapper([if is_copy { &copy } else { &stock }]);
                }
                if let Some(parent) = parent {
                    local = local.via(contexts[parent].as_ref().unwrap());
                }
                (at, local.start())
            });
            let starting: Vec<_> = starting.collect();
            for (at, connecting) in starting {
                contexts[at] = Some(connecting.wait().unwrap());
            }
        }
        let contexts: Vec<Context> = contexts.into_iter().flatten().collect();
        let pids = contexts.iter().map(|context| context.call_async(stock::identify, ()));
        let pids: Vec<u32> = pids.map(|call| call.get().unwrap().pid).collect();
        let mut nodes: Vec<Node> = Vec::new();
        for (context, ((parent, depth, is_copy), pid)) in
            contexts.into_iter().zip(shape.into_iter().zip(pids))
        {
            // Without a wrapper it is what its parent is.
            let is_copy = is_copy.unwrap_or(parent.is_none_or(|parent| nodes[parent].is_copy));
            nodes.push(Node { context, parent, depth, is_copy, pid });
        }
        Tree { nodes, router, _folder: folder }
    }

    /// What it looks like.
    pub fn told(&self) -> String {
        let copies = self.nodes.iter().filter(|node| node.is_copy).count();
        let depth = self.nodes.iter().map(|node| node.depth).max().unwrap_or(0);
        format!("{} contexts, {copies} of them copies, in {depth} levels", self.nodes.len())
    }

    /// This context and those above it, the nearest first.
    pub fn path(&self, at: usize) -> Vec<usize> {
        std::iter::successors(Some(at), |at| self.nodes[*at].parent).collect()
    }

    /// How many live below it, it included.
    pub fn weight(&self, at: usize) -> usize {
        (at..self.nodes.len()).filter(|other| self.path(*other).contains(&at)).count()
    }

    pub fn find(&self, id: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.context.context_id().0 == id)
    }

    /// The agents that there are on this machine, zombies included.
    pub fn processes() -> Vec<Process> {
        let is_agent = |process: &Process| {
            process.is_ours() || process.command.contains(ENTRY) || process.command.is_empty()
        };
        processes().into_iter().filter(is_agent).collect()
    }
}

/// Two scripts that execute an agent in place of what they are to execute: a stock agent, and a
/// copy of this binary.
fn wrappers(folder: &TempDir) -> [String; 2] {
    let image = folder.path().join("stock");
    fs::write(&image, stock_image_bytes()).unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
    let (image, own) = (image.display(), std::env::current_exe().unwrap());
    // A stock agent is told by its argument, a test binary by a variable.
    let word = "word=${MITOGEN_TEST_AGENT:-$2}; unset MITOGEN_TEST_AGENT";
    let stock = format!("{word}\nexec '{image}' \"$word\" {TITLE}");
    let entry = format!("--exact {ENTRY} --nocapture --test-threads=1");
    let copy = format!("{word}\nMITOGEN_TEST_AGENT=$word exec '{}' {entry}", own.display());
    [("as_stock", stock), ("as_copy", copy)].map(|(name, text)| script(folder.path(), name, &text))
}
