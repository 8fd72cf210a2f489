//! The manual's examples, run as it says: `cargo run --example NAME`.

use std::process::Command;

use crate::support::{Need, beside_others, requires, run};

/// What an example prints when it is run with these arguments.
#[track_caller]
fn said(name: &str, args: &[&str]) -> String {
    let _company = beside_others();
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or("cargo".to_owned()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["run", "--quiet", "--locked", "--offline", "--example", name, "--"]).args(args);
    run(&mut cargo)
}

#[test]
fn hello_is_said_by_two_processes() {
    let said = said("hello", &[]);
    let lines: Vec<&str> = said.lines().collect();
    let process = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    assert!(lines.len() == 2 && lines[1].starts_with("hello from there"), "{said}");
    assert_ne!(process(lines[0]), process(lines[1]));
}

#[test]
fn stream_prints_a_file() {
    let text = std::fs::read_to_string("/etc/passwd").unwrap();
    for args in [&[][..], &["/etc/passwd", "0.1", "local/local"]] {
        assert_eq!(said("stream", args).trim_end(), text.trim_end());
    }
}

#[test]
fn fan_out_counts_the_same_whoever_counts() {
    for args in [&[][..], &["local", "local/local"]] {
        let said = said("fan_out", args);
        assert_eq!(said.lines().last(), Some("17984 primes below 200000"));
    }
}

#[test]
fn ssh_sudo_becomes_another_user() {
    if !requires(&[Need::Root, Need::Sudo]) {
        return;
    }
    let said = said("ssh_sudo", &["local", "nobody"]);
    assert!(said.contains("local/sudo:nobody: nobody@"), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn in_process_needs_no_other() {
    assert!(said("in_process", &[]).contains("in context 1 for 0"));
}

#[test]
fn the_demo_shows_a_tree_by_itself() {
    let said = said("demo", &[]);
    assert!(said.starts_with("2 contexts connected") && said.contains("all below /usr"), "{said}");
}
