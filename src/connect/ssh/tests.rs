//! The options of ssh, and what becomes of each.

use std::sync::Arc;

use super::*;
use crate::connect::handshake::{Handshake, Origin};
use crate::connect::meaning::told;
use crate::connect::options::{Common, recipe};
use crate::connect::recipe::Reply;
use crate::error::Exit;

const BASE: Base<'_> = Base { parent: None, title: "t", nonce: 1, answer_nonce: 2, asks: false };

fn made(options: &[(&str, &str)]) -> Result<Recipe, String> {
    let mut method = SshOptions::empty();
    for (key, value) in options {
        method.set(key, value)?;
    }
    recipe(&method, &Common::default(), &BASE).map_err(|why| why.to_string())
}

#[track_caller]
fn assert_argv(options: &[(&str, &str)], expected: &str) {
    let Ok(Recipe { start: Start::Shell { argv, .. }, .. }) = made(options) else {
        panic!("no recipe")
    };
    assert_eq!(argv.last(), Some(&first_command(1)));
    let words = argv[..argv.len() - 1].iter().map(|word| String::from_utf8_lossy(word));
    assert_eq!(words.collect::<Vec<_>>().join(" "), expected);
}

/// The arguments of a host without options.
const PLAIN: &str = "ssh -T -o LogLevel=ERROR -o BatchMode=yes -o StrictHostKeyChecking=yes \
                     -o ServerAliveInterval=15 -o ServerAliveCountMax=3 web";

/// One option of the host `web` puts `there` where `here` stands in [`PLAIN`].
#[track_caller]
fn assert_makes(key: &str, value: &str, here: &str, there: &str) {
    assert!(PLAIN.contains(here), "{here}");
    assert_argv(&[("hostname", "web"), (key, value)], &PLAIN.replacen(here, there, 1));
}

#[test]
fn each_option_is_an_argument_of_its_own() {
    assert_argv(&[("hostname", "web")], PLAIN);
    assert_makes("hostname", "[::1]", " web", " ::1");
    assert_makes("username", "me", " web", " -l me web");
    assert_makes("port", "22", " web", " -p 22 web");
    assert_makes("ssh_args", "-4 -x", " web", " -4 -x web");
    assert_makes("ssh_path", "/opt/ssh", "ssh ", "/opt/ssh ");
    assert_makes("identities_only", "no", "", "");
    let only = "-o IdentitiesOnly=yes -o IdentityFile=none -o Strict";
    assert_makes("identity_file", "~/k", "-o Strict", &format!("-i ~/k {only}"));
    assert_makes("compression", "yes", "-o ServerAliveI", "-o Compression=yes -o ServerAliveI");
    assert_makes("compression", "no", "-o ServerAliveI", "-o Compression=no -o ServerAliveI");
    assert_makes("keepalive_interval", "7", "Interval=15", "Interval=7");
    assert_makes("keepalive_count", "2", "CountMax=3", "CountMax=2");
    let never = "Interval=15 -o ServerAliveCountMax=3";
    assert_makes("keepalive_interval", "0", never, "Interval=0");
    assert_makes("ssh_debug_level", "0", "", "");
    assert_makes("ssh_debug_level", "1", "-o LogLevel=ERROR", "-v");
    assert_makes("ssh_debug_level", "3", "-o LogLevel=ERROR", "-vvv");
    assert_makes("check_host_keys", "enforce", "", "");
    assert_makes(
        "check_host_keys",
        "ignore",
        "Checking=yes",
        "Checking=no -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null",
    );
    let may_ask = "BatchMode=no -o NumberOfPasswordPrompts=1";
    assert_makes("password", "x", "BatchMode=yes -o Strict", &format!("{may_ask} {only}"));
    assert_makes(
        "check_host_keys",
        "accept",
        "BatchMode=yes -o StrictHostKeyChecking=yes",
        &format!("{may_ask} -o StrictHostKeyChecking=ask -o CheckHostIP=no"),
    );
}

#[test]
fn a_key_or_a_password_may_stand_beside_other_keys() {
    let key = [("hostname", "web"), ("identity_file", "/k"), ("identities_only", "no")];
    assert_argv(&key, &PLAIN.replace("-o Strict", "-i /k -o Strict"));
    let password = [("hostname", "web"), ("password", "x"), ("identities_only", "no")];
    let may_ask = "BatchMode=no -o NumberOfPasswordPrompts=1";
    assert_argv(&password, &PLAIN.replace("BatchMode=yes", may_ask));
}

#[test]
fn a_terminal_is_there_only_for_a_password_or_a_question_about_the_host() {
    for check in ["enforce", "ignore"] {
        let without = made(&[("hostname", "web"), ("check_host_keys", check)]).unwrap();
        assert!(!without.terminal && without.secret.is_none() && without.prompts.is_empty());
    }
    let accepting = made(&[("hostname", "web"), ("check_host_keys", "accept")]).unwrap();
    assert!(accepting.terminal && accepting.secret.is_none());
    let with = made(&[("hostname", "web"), ("password", "x")]).unwrap();
    assert!(with.terminal && with.secret.is_some());
    assert_eq!(with.name, "ssh:web?password=***");
}

#[test]
fn what_the_client_would_take_for_an_option_is_refused() {
    for host in ["", "-oProxyCommand=x", "a b", "a\0b", "me@web", "a/b", "[::1]:22"] {
        assert!(made(&[("hostname", host)]).is_err(), "{host}");
    }
    for (key, value) in [("username", "-x"), ("username", ""), ("port", "0"), ("port", "x")] {
        assert!(made(&[("hostname", "web"), (key, value)]).is_err(), "{key} {value}");
    }
    assert!(made(&[]).is_err());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let values = [
        ("keepalive_interval", "-1"),
        ("keepalive_interval", "1.5"),
        ("keepalive_interval", "2147483648"),
        ("keepalive_count", "0"),
        ("keepalive_count", "x"),
        ("ssh_debug_level", "4"),
        ("ssh_debug_level", "256"),
        ("compression", "6"),
        ("identities_only", ""),
        ("check_host_keys", "true"),
    ];
    for (key, value) in values {
        assert!(made(&[("hostname", "web"), (key, value)]).is_err(), "{key} {value}");
    }
}

#[test]
fn options_that_differ_from_their_defaults_are_in_the_address() {
    let defaults = [("hostname", "web"), ("keepalive_interval", "15"), ("identities_only", "yes")];
    assert_eq!(made(&defaults).unwrap().name, "ssh:web");
    let options = [
        ("hostname", "web"),
        ("identities_only", "no"),
        ("compression", "no"),
        ("keepalive_interval", "0"),
        ("keepalive_count", "9"),
        ("ssh_debug_level", "2"),
    ];
    let name = "ssh:web?identities_only=no&compression=no&keepalive_interval=0&\
                keepalive_count=9&ssh_debug_level=2";
    assert_eq!(made(&options).unwrap().name, name);
}

#[test]
fn a_part_of_a_second_is_a_second() {
    assert_eq!(whole_seconds(Duration::ZERO), 0);
    assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
    assert_eq!(whole_seconds(Duration::from_secs(15)), 15);
    assert_eq!(whole_seconds(Duration::MAX), u32::MAX);
}

/// What is typed when the terminal shows this.
fn reply_to(options: &[(&str, &str)], question: &str) -> Option<Reply> {
    let recipe = made(&[&[("hostname", "web")], options].concat()).unwrap();
    let found = recipe.prompts.iter().find(|prompt| prompt.line.matches(question.as_bytes()));
    found.map(|prompt| prompt.reply)
}

#[test]
fn questions_for_a_password_of_all_versions_are_known() {
    let password = [("password", "x")];
    for question in [
        "me@web's password: ",
        "\rme@web's password: ",
        "(me@web) Password: ",
        "(me@web) Password for me@web:",
        "(me@web) LDAP Password: ",
        "Password: ",
        "Password for me@web:",
    ] {
        assert_eq!(reply_to(&password, question), Some(Reply::Password), "{question:?}");
    }
    for question in ["(me@web) Verification code: ", "Verification code: ", "Go on? "] {
        assert_eq!(reply_to(&password, question), None, "{question:?}");
    }
    // What debug output says is no question.
    let debug = "debug1: read_passphrase: password: ";
    assert_ne!(reply_to(&password, debug), Some(Reply::Password));
    for question in ["Enter passphrase for key '/k': ", "Enter PIN for ED25519-SK key /k: "] {
        assert_eq!(reply_to(&password, question), Some(Reply::Nothing), "{question:?}");
    }
}

#[test]
fn a_new_host_is_accepted_in_the_words_of_all_versions_where_that_is_wanted() {
    const OLD: &str = "Are you sure you want to continue connecting (yes/no)? ";
    const NEW: &str = "Are you sure you want to continue connecting (yes/no/[fingerprint])? ";
    for question in [OLD, NEW] {
        assert_eq!(reply_to(&[("check_host_keys", "accept")], question), Some(Reply::Yes));
        for check in ["enforce", "ignore"] {
            assert_eq!(reply_to(&[("check_host_keys", check), ("password", "x")], question), None);
        }
    }
}

/// The failure when the client ends with these words.
fn failure_of(options: &[(&str, &str)], words: &str) -> ConnectFailure {
    let recipe = made(&[&[("hostname", "web")], options].concat()).unwrap();
    let mut handshake = Handshake::new(Arc::new(recipe));
    handshake.started();
    handshake.input(Origin::Terminal, words.replace('\n', "\r\n").as_bytes());
    told(&mut handshake, Exit::Code(255)).failure
}

#[test]
fn the_words_of_all_versions_tell_what_failed() {
    use ConnectFailure::*;
    const BANNER: &str =
        "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n";
    const FAILED: &str = "Host key verification failed.\n";
    let lines = [
        ("kex_exchange_identification: Connection closed by remote host\n", Busy),
        ("kex_exchange_identification: read: Connection reset by peer\n", Busy),
        ("ssh_exchange_identification: Connection closed by remote host\n", Busy),
        ("ssh_exchange_identification: read: Connection reset by peer\n", Busy),
        ("Connection closed by 10.0.0.1 port 22\n", Busy),
        ("Connection reset by 10.0.0.1 port 22\n", Busy),
        ("Connection closed by 10.0.0.1\n", Busy),
        ("kex_exchange_identification: banner line contains invalid characters\n", Ended),
        ("Connection timed out during banner exchange\n", Unreachable),
        ("ssh: connect to host web port 22: Operation timed out\n", Unreachable),
        ("ssh: connect to host web port 22: Host is down\n", Unreachable),
        ("me@web: Permission denied (publickey,password).\n", PasswordRequired),
        ("me@web: Permission denied (publickey,keyboard-interactive).\n", PasswordRequired),
        ("me@web: Permission denied (publickey,gssapi-with-mic).\n", Denied),
        ("Permission denied (publickey).\n", Denied),
        ("Received disconnect from ::1 port 22:2: Too many authentication failures\n", Denied),
        (FAILED, HostKey),
        (&[BANNER, FAILED].concat(), HostKeyChanged),
        (
            &["Host key for web has changed and you have requested strict checking.\n", FAILED]
                .concat(),
            HostKeyChanged,
        ),
        (
            &[
                "ED25519 host key for web was revoked and you have requested strict checking.\n",
                FAILED,
            ]
            .concat(),
            HostKeyChanged,
        ),
        // What the jump host's client said is the cause, though it stands first.
        (
            "ssh: connect to host jump port 22: Connection refused\n\
             kex_exchange_identification: Connection closed by remote host\n\
             Connection closed by UNKNOWN port 65535\n",
            ConnectionRefused,
        ),
        ("debug1: kex_exchange_identification: Connection closed by remote host\n", Ended),
    ];
    for (words, failure) in lines {
        assert_eq!(failure_of(&[], words), failure, "{words}");
    }
}

#[test]
fn who_gave_a_key_or_a_password_hears_what_became_of_that() {
    const LIST: &str = "me@web: Permission denied (publickey,password).\n";
    assert_eq!(failure_of(&[("identity_file", "/k")], LIST), ConnectFailure::Denied);
    let password = [("password", "x")];
    // It was not asked for.
    assert_eq!(failure_of(&password, LIST), ConnectFailure::Denied);
    let recipe = made(&[("hostname", "web"), ("password", "x")]).unwrap();
    for (words, failure) in [
        (LIST, ConnectFailure::PasswordWrong),
        ("Permission denied, please try again.\n", ConnectFailure::PasswordWrong),
        // It was right, and a key is wanted too; or nobody can tell: another try could do harm.
        ("me@web: Permission denied (publickey).\n", ConnectFailure::Denied),
        ("Connection closed by 10.0.0.1 port 22\n", ConnectFailure::Ended),
    ] {
        let mut handshake = Handshake::new(Arc::new(recipe.clone()));
        handshake.started();
        assert_eq!(handshake.input(Origin::Terminal, b"\rme@web's password: ").len(), 1);
        handshake.input(Origin::Terminal, &["\n", words].concat().into_bytes());
        assert_eq!(told(&mut handshake, Exit::Code(255)).failure, failure, "{words}");
    }
}
