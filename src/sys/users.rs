//! A system's own list of users, as its files have it: for roots other than ours, where no library
//! could be asked. Nothing in these files is trusted.

use super::text::{cut, has, parse_decimal};

/// A user of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// The number; never the one that the kernel takes for "no change".
    pub uid: u32,
    /// The number of the first group; as above.
    pub gid: u32,
    /// The home directory; may be empty.
    pub home: &'a [u8],
    /// The shell; may be empty.
    pub shell: &'a [u8],
}

/// The user of this name in the text of /etc/passwd, whose first line of that name counts. Root is
/// there even if the text has no such line.
pub fn find<'a>(mut passwd: &'a [u8], name: &[u8]) -> Option<User<'a>> {
    while !passwd.is_empty() {
        let line = cut(&mut passwd, b'\n');
        if field(line, 0) == name && !has(line, 0) {
            let (uid, gid) = (number(field(line, 2))?, number(field(line, 3))?);
            return Some(User { uid, gid, home: field(line, 5), shell: field(line, 6) });
        }
    }
    (name == b"root").then_some(User { uid: 0, gid: 0, home: b"", shell: b"" })
}

/// The groups that this user is in, by the text of /etc/group; the first one among them.
pub fn groups(mut group: &[u8], name: &[u8], first: u32) -> Vec<u32> {
    let mut all = vec![first];
    while !group.is_empty() {
        let line = cut(&mut group, b'\n');
        let mut members = field(line, 3);
        while !members.is_empty() {
            if cut(&mut members, b',') == name {
                all.extend(number(field(line, 2)));
            }
        }
    }
    all
}

/// A field of a line, by its place; one that is not there is empty.
fn field(mut line: &[u8], place: usize) -> &[u8] {
    for _ in 0..place {
        cut(&mut line, b':');
    }
    cut(&mut line, b':')
}

fn number(text: &[u8]) -> Option<u32> {
    let number = parse_decimal(text)?;
    if number < u64::from(u32::MAX) { Some(number as u32) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/ash\n\nbad\n+::::::\n\
        web:x:33:34:Web, Mr:/var/www:\nweb:x:0:0::/root:/bin/sh\nshort:x:5\nold:x:6:6::/old\n\
        all:x:4294967295:0::/:/bin/sh\nmany:x:1:4294967295::/:\nminus:x:-1:1::/:\n\
        big:x:4294967296:0::/:\n\
        cut:x:8:8::/\0LD_PRELOAD=x:/bin/sh\n";

    #[test]
    fn a_user_is_the_first_line_of_the_name() {
        let user = |name: &str| find(PASSWD, name.as_bytes());
        let web = User { uid: 33, gid: 34, home: b"/var/www", shell: b"" };
        assert_eq!(user("web"), Some(web));
        assert_eq!(user("root").unwrap().shell, b"/bin/ash");
        assert_eq!(user("old"), Some(User { uid: 6, gid: 6, home: b"/old", shell: b"" }));
        for name in ["we", "webb", "", "nobody", "short", "bad", "Web", "+"] {
            assert_eq!(user(name), None, "{name}");
        }
    }

    #[test]
    fn a_number_that_would_leave_us_who_we_are_is_no_user() {
        for name in ["all", "many", "minus", "big", "cut"] {
            assert_eq!(find(PASSWD, name.as_bytes()), None, "{name}");
        }
        assert_eq!(groups(b"a:x:4294967295:web\nb:x:4294967296:web\n", b"web", 1), [1]);
    }

    #[test]
    fn root_needs_no_file() {
        assert_eq!(find(b"", b"root"), Some(User { uid: 0, gid: 0, home: b"", shell: b"" }));
        assert_eq!(find(b"", b"web"), None);
        // One who is badly written is not made up.
        assert_eq!(find(b"root:x:x:0::/:\n", b"root"), None);
    }

    #[test]
    fn groups_are_those_that_list_the_user() {
        let text = b"root:x:0:\nweb:x:34:\nlog:x:4:syslog,web\nadm:x:5:webb,we\nx:x:6\n\
            bad:x:x:web\nlast:x:7:web";
        assert_eq!(groups(text, b"web", 34), [34, 4, 7]);
        assert_eq!(groups(b"", b"web", 34), [34]);
    }
}
