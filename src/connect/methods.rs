//! The table of methods that addresses know. One more method is one more line here, and its file.

use crate::connect::options::sealed::Entry;
use crate::connect::{buildah, command, doas, docker, fork, incus, jail, kubectl, local, lxc};
use crate::connect::{lxd, podman, setns, ssh, su, sudo};

/// All methods, by name.
pub(crate) static METHODS: [&Entry; 16] = [
    &buildah::ENTRY,
    &command::ENTRY,
    &doas::ENTRY,
    &docker::ENTRY,
    &fork::ENTRY,
    &incus::ENTRY,
    &jail::ENTRY,
    &kubectl::ENTRY,
    &local::ENTRY,
    &lxc::ENTRY,
    &lxd::ENTRY,
    &podman::ENTRY,
    &setns::ENTRY,
    &ssh::ENTRY,
    &su::ENTRY,
    &sudo::ENTRY,
];

/// The method of this name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    METHODS.into_iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::address::Address;
    use crate::connect::options::Common;
    use crate::error::AddressError;

    #[test]
    fn methods_stand_in_the_order_of_their_names() {
        let names = METHODS.map(|entry| entry.name);
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn addresses_of_containers_read_and_show_the_same() {
        for text in [
            "docker:app",
            "docker:me:us@app?docker_path=/d",
            "docker?image=alpine:3&username=me",
            "docker?image=registry.test:5000/team/app@sha256:00",
            "podman:me@app",
            "podman?image=alpine/ssh:web",
            "buildah:me@work",
            "kubectl:web?container=c&namespace=n&context=x&kubectl_args=-v%201",
            "kubectl:deploy%2Fweb",
            "lxc:t?lxc_attach_path=/l",
            "lxd:far%3At",
            "incus:t/docker:app",
            "jail:me@www?jexec_path=jexec",
            "command:vagrant%20ssh%20-c",
            "command:chroot%20%2Fsrv?shell_words=yes&terminal=yes/local",
        ] {
            let shown = text.parse::<Address>().unwrap_or_else(|why| panic!("{why}")).to_string();
            assert_eq!(shown.parse::<Address>().unwrap().to_string(), shown);
            let colon = |text: &str| text.replace("%3A", ":").replace("me:us", "me%3Aus");
            assert_eq!(colon(&shown), colon(text));
        }
        let two_ways = ["command?argv=chroot /srv -- x", "command:chroot %2Fsrv -- x"];
        let [one, other] = two_ways.map(|text| text.parse::<Address>().unwrap());
        assert_eq!(one, other);
    }

    #[test]
    fn a_path_may_end_with_the_name_of_a_method_that_needs_a_target() {
        for (text, count) in [
            ("docker:app?docker_path=/usr/bin/docker", 1),
            ("ssh:web?identity_file=/srv/lxc/key&ssh_path=/opt/ssh/bin/ssh", 1),
            ("docker:app?docker_path=/usr/bin/docker/docker:inner", 2),
            ("docker:app?docker_path=/usr/bin/docker/docker?image=x/local", 3),
            ("sudo?sudo_path=/usr/bin/sudo", 2),
            ("sudo?sudo_path=/usr/bin%2Fsudo", 1),
        ] {
            let address: Address = text.parse().unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(address.hops().len(), count, "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn addresses_without_a_target_or_with_two_are_refused_when_they_are_read() {
        for (text, why) in [
            ("docker", "docker?image="),
            ("docker:a?image=b", "a container and an image"),
            ("podman?username=me", "podman:NAME"),
            ("lxc", "needs a target"),
            ("kubectl:", "no pod"),
            ("kubectl:-x", "begins with"),
            ("command", "no command"),
            ("command:-x", "begins with"),
            ("command:/bin/sh -c", "%2F"),
            ("command:chroot /srv", "%2F"),
        ] {
            let error: AddressError = text.parse::<Address>().unwrap_err();
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }

    /// What the manual's table and the command's help must say of a method.
    fn names_in(text: &str) -> Vec<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect()
    }

    #[test]
    fn the_manual_and_the_help_name_every_method_and_option() {
        let manual = include_str!("../manual/methods.md");
        let help = include_str!("../bin/mitogen/help.txt");
        for entry in METHODS {
            let row = manual.lines().find(|line| line.starts_with(&format!("| `{}`", entry.name)));
            let row = row.unwrap_or_else(|| panic!("the manual lacks {}", entry.name));
            let is_own = |line: &str| {
                let rest = line.strip_prefix("    ").and_then(|rest| rest.strip_prefix(entry.name));
                rest.is_some_and(|rest| rest.starts_with([':', '[', '?', ' ']))
            };
            let mut lines = help.lines().skip_while(|line| !is_own(line));
            let first = lines.next().unwrap_or_else(|| panic!("the help lacks {}", entry.name));
            // Up to the next method, which begins in the same column.
            let rest = lines.take_while(|line| line.starts_with("     "));
            let item = rest.fold(first.to_owned(), |item, line| item + "\n" + line);
            for option in entry.options {
                assert!(names_in(row).contains(option), "manual: {}: {option}", entry.name);
                assert!(names_in(&item).contains(option), "help: {}: {option}", entry.name);
            }
        }
        for option in Common::OPTIONS {
            assert!(names_in(manual).contains(&option), "manual: {option}");
            assert!(names_in(help).contains(&option), "help: {option}");
        }
    }
}
