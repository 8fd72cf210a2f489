//! Addresses, good and bad.

use proptest::prelude::*;

use crate::connect::address::Address;
use crate::connect::options::{Base, recipe};
use crate::error::{AddressError, Error};
use crate::limits::HOPS_MAX;

#[track_caller]
fn assert_reads(text: &str, canonical: &str) {
    let address: Address = text.parse().unwrap_or_else(|why: AddressError| panic!("{why}"));
    assert_eq!(address.to_string(), canonical);
    let again: Address = canonical.parse().unwrap_or_else(|why: AddressError| panic!("{why}"));
    assert_eq!(again, address);
}

#[track_caller]
fn assert_bad(text: &str, at: usize, why: &str) {
    let error = text.parse::<Address>().expect_err("it parsed");
    assert!(error.why.contains(why), "{error}");
    assert_eq!(error.at, at, "{error}");
}

#[test]
fn good_addresses_read_and_show_the_same() {
    for text in [
        "local",
        "ssh:web1",
        "sudo",
        "sudo:root",
        "ssh:deploy@web1:2222/sudo:root",
        "ssh:me@[::1]:22",
        "ssh:[fe80::1%eth0]",
        "local/local/local",
        "ssh:web?identity_file=/k/id&check_host_keys=ignore/sudo:root",
        "ssh:web?identity_file=/home/localhost/id/sudo",
        "ssh:web?identity_file=/home%2Flocal",
        "local?connect_timeout=2.5&directory=/opt/x",
        "local/local?memfd=no",
        "sudo:x?set_home=yes&preserve_env=yes",
        "ssh:a%40b@web",
        "sudo:corp%2Fjoe",
        "ssh:web?ssh_args=-4%20-v",
        "ssh:web?identity_file=/k?=#+é",
    ] {
        assert_reads(text, text);
    }
}

#[test]
fn what_may_be_written_in_two_ways_shows_in_one() {
    assert_reads("ssh:web?port=22&username=me", "ssh:me@web:22");
    assert_reads("sudo?username=root", "sudo:root");
    assert_reads("ssh:w%65b", "ssh:web");
    assert_reads("ssh:web?check_host_keys=enforce", "ssh:web");
    assert_reads("ssh:web?identity_file=%2Fk%2fid", "ssh:web?identity_file=/k/id");
    assert_reads("ssh:me@web?check_host_keys=ignore&identity_file=/k", {
        "ssh:me@web?identity_file=/k&check_host_keys=ignore"
    });
    assert_reads("ssh:a@b@web", "ssh:a%40b@web");
    assert_reads("sudo?set_home=no", "sudo");
}

#[test]
fn a_hop_begins_at_a_slash_before_a_method_alone() {
    let hops = |text: &str| text.parse::<Address>().unwrap().hops().len();
    assert_eq!(hops("ssh:web?identity_file=/k/local"), 2);
    assert_eq!(hops("ssh:web?identity_file=/k/local?directory=/x"), 2);
    assert_eq!(hops("ssh:web?identity_file=/k/locals"), 1);
    assert_eq!(hops("ssh:web?identity_file=/k/local.pem/sudo:x/local"), 3);
    assert_eq!(hops("ssh:web?identity_file=/k%2Flocal"), 1);
}

#[test]
fn bad_addresses_say_where_and_why() {
    for (text, at, why) in [
        ("", 0, "methods are: buildah, command, "),
        ("podnam:x", 0, "unknown: `podnam`"),
        ("local/", 6, "no method"),
        ("local/telnet:x", 6, "unknown: `telnet`"),
        ("local:x", 6, "local takes no target"),
        ("ssh", 3, "ssh needs a target"),
        ("ssh/sudo", 3, "ssh needs a target"),
        ("ssh:", 4, "no hostname"),
        ("ssh:me@", 7, "no hostname"),
        ("ssh:@web", 4, "username is empty"),
        ("ssh:-oProxyCommand=x", 4, "begins with `-`"),
        ("ssh:web:", 8, "a number from 1 to 65535"),
        ("ssh:web:99999", 8, "a number from 1 to 65535"),
        ("ssh:::1", 4, "brackets: [::1]"),
        ("ssh:[::1", 4, "no `]`"),
        ("ssh:[web]", 4, "brackets are for IPv6"),
        ("ssh:[::1]x", 9, "expected `:` and a port"),
        ("ssh:web?", 8, "no option; options of ssh: username, port"),
        ("ssh:web?color=red", 8, "unknown: `color`"),
        ("ssh:web?port", 12, "expected `=`"),
        ("ssh:web?port=x", 13, "a number from 1 to 65535"),
        ("ssh:web:1?port=2", 15, "given twice"),
        ("ssh:web?check_host_keys=maybe", 24, "enforce, accept or ignore"),
        ("ssh:web?identity_file=%zz", 22, "hexadecimal"),
        ("ssh:web?identity_file=a%", 23, "hexadecimal"),
        ("ssh:web?identity_file=%ff", 22, "UTF-8"),
        ("ssh:web?identity_file=a%00b", 22, "control character"),
        ("local?directory=tmp", 16, "absolute"),
        ("local?connect_timeout=soon", 22, "seconds"),
        ("local?connect_timeout=-1", 22, "negative"),
        ("sudo:root?set_home=1", 19, "yes nor no"),
        ("local?password=x", 6, "unknown"),
    ] {
        assert_bad(text, at, why);
    }
    assert_bad(&vec!["local"; HOPS_MAX + 1].join("/"), HOPS_MAX * 6, "more than");
    assert!(vec!["local"; HOPS_MAX].join("/").parse::<Address>().is_ok());
}

#[test]
fn an_error_points_at_its_byte() {
    let error = "ssh:é/telnet".parse::<Address>().unwrap_err();
    let shown = Error::from(error).to_string();
    assert!(shown.ends_with("\n  ssh:é/telnet\n        ^"), "{shown}");
}

#[test]
fn passwords_are_never_shown() {
    let text = "ssh:web?password=hunter2/sudo?password=hunt/er2&set_home=yes";
    let address: Address = text.parse().unwrap();
    let shown = address.to_string();
    assert_eq!(shown, "ssh:web?password=***/sudo?set_home=yes&password=***");
    assert_eq!(format!("{address:?}"), shown);
    assert_bad(&shown, 17, "does not have the password");
    let error = "ssh:web?password=hunter2&port=x".parse::<Address>().unwrap_err();
    assert_eq!((&*error.address, error.at), ("ssh:web?password=*******&port=x", 30));
    assert_ne!(address, text.replace("hunter2", "other").parse().unwrap());
}

#[test]
fn prefixes_are_the_contexts_on_the_way() {
    let address: Address = "local/ssh:web/sudo".parse().unwrap();
    let prefixes: Vec<String> = address.prefixes().map(|prefix| prefix.to_string()).collect();
    assert_eq!(prefixes, ["local", "local/ssh:web", "local/ssh:web/sudo"]);
}

#[test]
fn a_hop_makes_the_recipe_that_it_names() {
    let address: Address = "ssh:web/sudo:joe?password=x&connect_timeout=2.5".parse().unwrap();
    let (common, method) = address.hops()[1].options();
    let base = Base { parent: Some("ssh:web"), title: "t", nonce: 1, answer_nonce: 2, asks: false };
    let recipe = recipe(&*method, &common, &base).unwrap();
    assert_eq!(recipe.name, "ssh:web/sudo:joe?password=***&connect_timeout=2.5");
    assert_eq!((recipe.timeout_ms, recipe.terminal), (2500, true));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9/:?&=%@ .é\\[\\]]{1,12}",
        Just("/local".to_owned()),
        Just("a/ssh:b?".to_owned()),
        Just("/k/sudo".to_owned()),
    ]
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn any_text_survives_a_round_trip(
        user in text(), path in text(), args in "[a-z/]{1,9}", port in 1u16.., times in 1usize..4,
    ) {
        let hop = format!(
            "ssh:{}@web:{port}?identity_file={}&ssh_args={}",
            escaped(&user), escaped(&path), escaped(&args)
        );
        let sudo = format!("sudo:{}?sudo_path={}", escaped(&user), escaped(&path));
        let text = vec![format!("{hop}/{sudo}"); times].join("/");
        let address: Address = text.parse().unwrap();
        prop_assert_eq!(address.hops().len(), 2 * times);
        let shown = address.to_string();
        let again: Address = shown.parse().unwrap_or_else(|why| panic!("{shown}: {why}"));
        prop_assert_eq!(&again, &address);
        prop_assert_eq!(again.to_string(), shown);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z0-9/:?&=%@.é\\[\\]-]{0,40}") {
        for text in [text.clone(), "ssh:".to_owned() + &text, "sudo?password=".to_owned() + &text] {
            if let Err(error) = text.parse::<Address>() {
                let _ = Error::from(error).to_string();
            }
        }
    }
}
