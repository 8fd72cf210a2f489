//! Method `ssh` over a real sshd.

use std::net::TcpListener;

use mitogen::{Address, Context, HostKeys, Program, Router, stock};

use crate::support::*;

fn router() -> Router {
    Program::new().image(stock_image()).router().unwrap()
}

fn user() -> TestUser {
    TestUser::create(Some("right horse"))
}

fn user_of(context: &Context) -> String {
    context.call(stock::identify, ()).unwrap().user
}

#[test]
fn a_key_lets_us_in() {
    with_server(Sshd::start, user, |sshd, user| {
        let router = router();
        let context = sshd.connect(&router, user).connect().unwrap();
        let identity = context.call(stock::identify, ()).unwrap();
        assert_eq!(identity.user, user.name);
        assert_ne!(identity.pid, std::process::id());
        assert!(context.name().starts_with(&format!("ssh:{}@127.0.0.1:", user.name)), "{context}");
    });
}

#[test]
fn an_address_is_a_connection() {
    with_server(Sshd::start, user, |sshd, user| {
        let router = router();
        let address: Address = format!("{}/local", sshd.address(user)).parse().unwrap();
        let context = router.connect(&address).unwrap();
        assert_eq!(user_of(&context), user.name);
        let again = router.connect(&address).unwrap();
        assert_eq!(again, context);
        assert_eq!(router.children().len(), 1);
    });
}

#[test]
fn ssh_then_sudo_then_local_are_three_hops() {
    with_server(Sshd::start, user, |sshd, user| {
        if !requires(&[Need::Sudo]) {
            return;
        }
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let router = router();
        let first = sshd.connect(&router, user).connect().unwrap();
        let second = router.sudo().via(&first).connect().unwrap();
        let third = router.local().via(&second).connect().unwrap();
        let users = [&first, &second, &third].map(user_of);
        assert_eq!(users, [&user.name[..], "root", "root"]);
        let pids = [&first, &second, &third].map(|c| c.call(stock::identify, ()).unwrap().pid);
        assert!(pids[0] != pids[1] && pids[1] != pids[2]);
        assert_eq!(third.name(), format!("{}/sudo/local", first.name()));
    });
}

#[test]
fn further_arguments_reach_the_client() {
    with_server(
        || Sshd::with("AcceptEnv MITOGEN_WORD\n"),
        user,
        |sshd, user| {
            let known = format!("UserKnownHostsFile={}", sshd.known_hosts().display());
            let ssh = ["-F", "none", "-o", &known, "-o", "SetEnv=MITOGEN_WORD=xyzzy"];
            let router = router();
            let context = sshd.connect(&router, user).ssh_args(ssh).connect().unwrap();
            let output = router.receiver();
            let argv = ["sh", "-c", "echo $MITOGEN_WORD"].map(Into::into).to_vec();
            let command = stock::Command { argv };
            context.call(stock::run, (command, output.to_sender())).unwrap();
            let said: Vec<stock::Output> = output.into_iter().map(Result::unwrap).collect();
            assert_eq!(said, [stock::Output::Stdout(b"xyzzy\n".to_vec())]);
        },
    );
}

#[test]
fn an_ipv6_address_is_a_host() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    with_server(
        || Sshd::with(&format!("ListenAddress [::1]:{port}\n")),
        user,
        |sshd, user| {
            let router = router();
            let key = sshd.identity_file().display().to_string();
            let ssh = router.ssh("[::1]").port(port).username(&user.name).identity_file(key);
            let ssh = ssh.check_host_keys(HostKeys::Ignore).ssh_args(["-F", "none"]);
            assert_eq!(user_of(&ssh.connect().unwrap()), user.name);
        },
    );
}
