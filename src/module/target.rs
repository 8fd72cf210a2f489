//! The names of targets. An image is for `<os>-<cpu>`, both as `std::env::consts` names them; here
//! alone stands what others call the same: `uname`, the heads of executables, and people.

/// What `uname -s` says, and our name for it.
const SYSTEMS: [(&str, &str); 6] = [
    ("Darwin", "macos"),
    ("DragonFly", "dragonfly"),
    ("FreeBSD", "freebsd"),
    ("Linux", "linux"),
    ("NetBSD", "netbsd"),
    ("OpenBSD", "openbsd"),
];

/// What `uname -m` says, and our name for it.
const PROCESSORS: [(&str, &str); 21] = [
    ("aarch64", "aarch64"),
    ("amd64", "x86_64"),
    ("arm", "arm"),
    ("arm64", "aarch64"),
    ("armv6l", "arm"),
    ("armv7", "arm"),
    ("armv7l", "arm"),
    ("armv8l", "arm"),
    ("i386", "x86"),
    ("i486", "x86"),
    ("i586", "x86"),
    ("i686", "x86"),
    ("i86pc", "x86_64"),
    ("loongarch64", "loongarch64"),
    ("powerpc64le", "powerpc64le"),
    ("ppc64le", "powerpc64le"),
    ("riscv64", "riscv64"),
    ("s390x", "s390x"),
    ("x64", "x86_64"),
    ("x86", "x86"),
    ("x86_64", "x86_64"),
];

/// The machine of an ELF file and its class, and our name for it.
const MACHINES: [(u16, u8, &str); 8] = [
    (3, 1, "x86"),
    (21, 2, "powerpc64le"),
    (22, 2, "s390x"),
    (40, 1, "arm"),
    (62, 2, "x86_64"),
    (183, 2, "aarch64"),
    (243, 2, "riscv64"),
    (258, 2, "loongarch64"),
];

/// The operating system that `uname -s` names so.
pub fn system(says: &[u8]) -> Option<&'static str> {
    look_up(&SYSTEMS, says)
}

/// The CPU that `uname -m`, or somebody, names so.
pub fn processor(says: &[u8]) -> Option<&'static str> {
    look_up(&PROCESSORS, says)
}

/// The CPU of an ELF file, by its machine and its class.
pub fn machine(number: u16, class: u8) -> Option<&'static str> {
    let found = MACHINES.iter().find(|(n, c, _)| (*n, *c) == (number, class));
    found.map(|(_, _, ours)| *ours)
}

/// What this process runs on, as `<os>-<cpu>`.
pub fn own() -> String {
    std::env::consts::OS.to_owned() + "-" + std::env::consts::ARCH
}

/// `<os>-<cpu>` by our names, whatever of their names it was written with: `linux-arm64` is
/// `linux-aarch64`. `None` if it is no target that we know.
pub fn canonical(name: &str) -> Option<String> {
    let (os, cpu) = name.split_once('-')?;
    let (_, os) = SYSTEMS.iter().find(|(theirs, ours)| [*theirs, *ours].contains(&os))?;
    Some([os, "-", processor(cpu.as_bytes())?].concat())
}

fn look_up(table: &[(&str, &'static str)], word: &[u8]) -> Option<&'static str> {
    table.iter().find(|(theirs, _)| theirs.as_bytes() == word).map(|(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(SYSTEMS.is_sorted() && PROCESSORS.is_sorted() && MACHINES.is_sorted());
    }

    #[test]
    fn every_name_of_ours_is_understood_as_itself() {
        for (_, system) in SYSTEMS {
            for cpu in PROCESSORS.iter().map(|(_, cpu)| *cpu).chain(MACHINES.map(|m| m.2)) {
                let name = [system, "-", cpu].concat();
                assert_eq!(canonical(&name), Some(name));
            }
        }
        assert_eq!(canonical(&own()), Some(own()));
    }

    #[test]
    fn other_names_of_the_same_are_understood() {
        for (name, ours) in [
            ("linux-arm64", "linux-aarch64"),
            ("linux-armv7", "linux-arm"),
            ("linux-i686", "linux-x86"),
            ("freebsd-amd64", "freebsd-x86_64"),
            ("Darwin-arm64", "macos-aarch64"),
        ] {
            assert_eq!(canonical(name).as_deref(), Some(ours));
        }
        for name in ["", "linux", "linux-", "-x86_64", "linux-pdp11", "plan9-x86_64", "linux x86"] {
            assert_eq!(canonical(name), None, "{name}");
        }
    }
}
