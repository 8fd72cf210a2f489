//! The contexts that live as long as a soak, and what is looked at in their processes.

use mitogen::{Call, Context, Router, stock};
use tempfile::TempDir;

use super::{add, allocated, hold, mitogen_test_program, program};
use crate::support::*;

/// Calls to each context that are under way before all else: more than ever after.
const CALLS_AT_ONCE: u64 = 1000;

/// The contexts that live as long as the test, and what clients of ssh are played by.
pub struct Bed {
    pub router: Router,
    pub child: Context,
    pub hop: Context,
    pub far: Context,
    pub inner: Context,
    /// Another tree in the same process, of stock agents; its program knows more than these.
    pub stock: Router,
    pub stock_hop: Context,
    pub stock_far: Context,
    clients: TempDir,
    pub processes: Vec<Watched>,
}

/// A process that lives as long as the test.
pub struct Watched {
    pub name: &'static str,
    pid: u32,
    /// Whom to ask for its heap; none for a stock agent.
    heap: Option<Context>,
}

impl Bed {
    pub fn new() -> Bed {
        let router = mitogen_test_program().router().unwrap();
        let [child, hop] =
            ["child", "hop"].map(|name| router.local().name(name).connect().unwrap());
        let far = router.local().via(&hop).connect().unwrap();
        let inner = router.in_process().unwrap();
        let stock = program().image(stock_image()).router().unwrap();
        let stock_hop = stock.local().connect().unwrap();
        let stock_far = stock.local().via(&stock_hop).connect().unwrap();
        let pid = |context: &Context| context.call(stock::identify, ()).unwrap().pid;
        let agent = |name, context: &Context| Watched {
            name,
            pid: pid(context),
            heap: (name != "stock hop" && name != "stock far").then(|| context.clone()),
        };
        let processes = vec![
            agent("master", &inner),
            agent("child", &child),
            agent("hop", &hop),
            agent("far", &far),
            agent("stock hop", &stock_hop),
            agent("stock far", &stock_far),
        ];
        let clients = tempfile::tempdir().unwrap();
        Bed { router, child, hop, far, inner, stock, stock_hop, stock_far, clients, processes }
    }

    /// Has many calls under way at a time, so that tables have the room that they will ever need:
    /// how many of those that are given up are under way is the scheduler's choice.
    pub fn fill_tables(&self) {
        let contexts = [&self.child, &self.far, &self.inner];
        let held: Vec<_> = contexts.iter().map(|context| context.call_async(hold, ())).collect();
        let sums = contexts.iter().flat_map(|context| {
            (0..CALLS_AT_ONCE).map(|i| context.call_async(add, (i, 1))).collect::<Vec<_>>()
        });
        let pings = (0..CALLS_AT_ONCE).map(|_| self.stock_far.call_async(stock::ping, ()));
        let (sums, pings): (Vec<_>, Vec<_>) = (sums.collect(), pings.collect());
        held.into_iter().for_each(|call| call.get().unwrap());
        sums.into_iter().map(Call::get).for_each(|sum| assert!(sum.is_ok()));
        pings.into_iter().for_each(|call| call.get().unwrap());
    }

    /// A client that poses as ssh and does this.
    pub fn client(&self, name: &str, text: &str) -> String {
        let path = self.clients.path().join(name);
        if path.exists() {
            path.display().to_string()
        } else {
            script(self.clients.path(), name, text)
        }
    }

    pub fn sizes(&self) -> Vec<Sizes> {
        self.processes.iter().map(Watched::sizes).collect()
    }
}

impl Watched {
    pub fn sizes(&self) -> Sizes {
        let ask = |context: &Context| context.call(allocated, ()).unwrap();
        Sizes::of(self.pid, self.heap.as_ref().map(ask))
    }
}
