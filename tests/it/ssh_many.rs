//! Many connects to one sshd at a time, which turns away more than ten that have not logged in.

use mitogen::{Connecting, Context, Program, Result, stock};

use crate::support::*;

const COUNT: usize = 200;

#[test]
fn two_hundred_connects_to_one_server_with_its_own_limits_succeed() {
    let server = || Sshd::with("MaxStartups 10:30:100\n");
    with_server(
        server,
        || TestUser::create(None),
        |sshd, user| {
            let router = Program::new().image(stock_image()).router().unwrap();
            let threads = own_threads().len();
            let ssh = sshd.connect(&router, user);
            let starting: Vec<Connecting> = (0..COUNT).map(|_| ssh.clone().start()).collect();
            assert_eq!(own_threads().len(), threads);
            let contexts: Result<Vec<Context>> =
                starting.into_iter().map(Connecting::wait).collect();
            let contexts = contexts.unwrap();
            let calls: Vec<_> =
                contexts.iter().map(|c| c.call_async(stock::identify, ())).collect();
            let mut pids: Vec<u32> =
                calls.into_iter().map(|call| call.get().unwrap().pid).collect();
            pids.sort();
            pids.dedup();
            assert_eq!(pids.len(), COUNT);
            // One each of three, and those of the router.
            let held = own_descriptors().len();
            assert!(held <= 3 * COUNT + 20, "{held} descriptors");
            router.shutdown();
        },
    );
}
