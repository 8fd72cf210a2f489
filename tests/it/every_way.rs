//! One tree of the command by every way that real tools of this machine lead.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::*;

const NEEDS: &[Need] = &[Need::Root, Need::Sshd, Need::Sudo, Need::Doas, Need::Docker, Need::Lxc];

#[test]
fn one_tree_of_the_command_leads_everywhere() {
    leaves_nothing(NEEDS, || {
        let (docker, lxc, sshd) = (Docker::shared(), Lxc::start(), Sshd::start());
        let user = TestUser::create(None);
        let _rules = Sudoers::install(&format!("{} ALL=(root) NOPASSWD: ALL", user.name));
        let _doas = DoasConf::install("permit nopass root");
        let (app, client) = (docker.container(), docker.client());
        let (key, port) = (sshd.identity_file(), sshd.port);
        let ssh = format!(
            "ssh:{}@127.0.0.1:{port}?identity_file={}&check_host_keys=ignore",
            user.name,
            key.display()
        );
        let in_docker = format!("docker:{app}?docker_path={client}");
        let ways = [
            ("local".to_owned(), "root"),
            ("fork".to_owned(), "root"),
            ("sudo:nobody".to_owned(), "nobody"),
            ("su:nobody?shell=/bin/sh".to_owned(), "nobody"),
            ("doas:nobody".to_owned(), "nobody"),
            (in_docker.clone(), "root"),
            (format!("docker:{WORKER}@{app}?docker_path={client}"), WORKER),
            (format!("setns:{WORKER}@{app}?kind=docker&docker_path={client}"), WORKER),
            (format!("lxc:{}?lxc_attach_path={}", lxc.name, lxc.tool("lxc-attach")), "root"),
            (format!("setns:{}?kind=lxc&lxc_info_path={}", lxc.name, lxc.tool("lxc-info")), "root"),
            ("command:sh%20-c".to_owned(), "root"),
            (format!("{ssh}/sudo:root/{in_docker}"), "root"),
        ];
        let mut command = Command::new(static_command());
        command.args(["tree", "--json"]).args(ways.iter().map(|(address, _)| address));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = told(&output);
        assert!(output.status.success() && output.stderr.is_empty(), "{said}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let nodes: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (address, user) in &ways {
            let node = nodes.iter().find(|node| node["name"] == **address);
            assert_eq!(node.unwrap_or_else(|| panic!("no {address}: {said}"))["user"], *user);
        }
        // We, and the two hops on the way to the last.
        assert_eq!(nodes.len(), 1 + ways.len() + 2, "{said}");
    });
}
