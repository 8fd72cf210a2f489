//! A tree of two CPUs: x86_64, below it aarch64 under qemu, below that x86_64 again. Calls and
//! streams cross it, and values mean the same everywhere.

use std::process::Command;
use std::time::Duration;

use mitogen::{Context, Program, Router, stock};

use crate::support::*;

fn hop(router: &Router, client: &str, via: Option<&Context>) -> Context {
    let hop = router.ssh("machine").ssh_path(client).connect_timeout(Duration::from_secs(60));
    let hop = if let Some(via) = via { hop.via(via) } else { hop };
    hop.connect().unwrap()
}

/// What a command prints in a context.
fn printed(context: &Context, argv: &[&str]) -> String {
    let argv = argv.iter().map(Into::into).collect();
    let receiver = context.router().receiver::<stock::Output>();
    let call = context.call_async(stock::run, (stock::Command { argv }, receiver.to_sender()));
    let pieces = receiver.into_iter().map(|piece| match piece.unwrap() {
        stock::Output::Stdout(bytes) | stock::Output::Stderr(bytes) => bytes,
    });
    let bytes = pieces.collect::<Vec<_>>().concat();
    assert_eq!(call.get().unwrap(), stock::Ended::Exited(0));
    String::from_utf8(bytes).unwrap()
}

#[test]
fn stock_agents_make_a_tree_of_two_cpus() {
    leaves_nothing(&[Need::Aarch64], || {
        let other = Aarch64::new();
        let images = [stock_image_for("x86_64"), stock_image_for("aarch64")];
        let router = Program::new().images(images).router().unwrap();
        let far = hop(&router, &other.client(), None);
        let back = hop(&router, &other.client_back(), Some(&far));
        let twin = router.local().via(&far).connect().unwrap();
        let deep = router.local().via(&back).connect().unwrap();
        for (context, cpu) in [(&far, "aarch64"), (&back, "x86_64"), (&twin, "aarch64")] {
            assert_eq!(context.call(stock::identify, ()).unwrap().cpu, cpu);
        }
        assert_eq!(printed(&far, &["uname", "-m"]), "aarch64\n");
        assert_eq!(printed(&deep, &["uname", "-m"]), "x86_64\n");
        let text = "x".repeat(100_000);
        assert_eq!(printed(&deep, &["echo", &text]).trim_end(), text);
    });
}

#[test]
fn values_and_calls_cross_a_tree_of_two_cpus() {
    let folder = {
        let _company = beside_others();
        // Not made where it could not run.
        if !requires(&[Need::Aarch64]) {
            return;
        }
        two_cpus()
    };
    leaves_nothing(&[Need::Aarch64], || {
        let other = Aarch64::new();
        let mut program = Command::new(folder.join("linux-x86_64"));
        program.arg(&folder).args([other.client(), other.client_back()]);
        let said = run(&mut program);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "twin: aarch64");
        let checked = lines.iter().filter(|line| line.starts_with("checked: ")).count();
        assert_eq!(checked, 3, "{said}");
        assert_eq!(lines[4], "chain: aarch64 for 0, x86_64 for 1");
    });
}
