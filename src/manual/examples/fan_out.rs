//! One task, shared out among several contexts: `cargo run --example fan_out -- [ADDRESS...]`.
//! Default: four processes of this machine.

use mitogen::{Address, Connecting, Context, Program, Result, Router, Select};

/// How many primes there are from `from` to just below `to`.
fn count_primes(from: u64, to: u64) -> u64 {
    let is_prime = |n: &u64| 2 <= *n && (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (from..to).filter(is_prime).count() as u64
}

/// Connects all at once: what addresses have in common is connected once all the same.
fn connect(router: &Router, addresses: &[Address]) -> Result<Vec<Context>> {
    let starting: Vec<Connecting> = match addresses {
        [] => (1..=4).map(|n| router.local().name(format!("worker-{n}")).start()).collect(),
        addresses => addresses.iter().map(|address| router.start(address)).collect(),
    };
    Select::in_order(starting)
}

fn main() -> Result<()> {
    Program::new().function(count_primes).run(|router| {
        let addresses: Result<Vec<Address>, _> =
            std::env::args().skip(1).map(|text| text.parse()).collect();
        let hosts = connect(router, &addresses?)?;

        // Each is sent at once; what they find is told as it arrives.
        let (to, shares) = (200_000, hosts.len() as u64);
        let calls = hosts.iter().zip(0..).map(|(host, share)| {
            let range = (to * share / shares, to * (share + 1) / shares);
            (host, host.call_async(count_primes, range))
        });
        let mut total = 0;
        for (host, count) in calls.collect::<Select<'_, _>>() {
            let count = count?;
            println!("{host}: {count}");
            total += count;
        }
        println!("{total} primes below {to}");
        Ok(())
    })
}
