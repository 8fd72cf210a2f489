//! Who and where we are.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use libc::c_char;

use super::errno::{Result, check};
use super::fd;
use super::text::{Decimal, fields, lossy, parse_decimal};

/// Bytes of /etc/passwd that are looked at.
const PASSWD_BYTES_MAX: usize = 1 << 20;

/// Whether this system's `su` reads a password from its standard input, or else from its terminal.
pub const SU_READS_STDIN: bool = cfg!(target_os = "linux");

/// What the kernel says of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uname {
    /// The operating system, such as `Linux`.
    pub sysname: String,
    /// The host's name.
    pub nodename: String,
    /// The CPU, such as `x86_64`.
    pub machine: String,
}

/// What the kernel says of this machine; empty texts if it says nothing.
pub fn uname() -> Uname {
    // SAFETY: arrays of bytes, for which zero is a value.
    let mut name: libc::utsname = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `name` has room for the answer.
    unsafe { libc::uname(&mut name) };
    Uname {
        sysname: text(&name.sysname),
        nodename: text(&name.nodename),
        machine: text(&name.machine),
    }
}

fn text(field: &[c_char]) -> String {
    // SAFETY: the system terminates each of its names.
    lossy(unsafe { CStr::from_ptr(field.as_ptr()) }.to_bytes())
}

/// Our process's number.
pub fn pid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getpid() }
}

/// The process that has us as its child; 0 if that is outside our namespace.
pub fn parent() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::getppid() }
}

/// The user that we act as.
pub fn uid() -> u32 {
    // SAFETY: takes nothing.
    unsafe { libc::geteuid() }
}

/// The name of the user that we act as, from /etc/passwd; else the number.
pub fn user_name() -> String {
    let uid = uid();
    let passwd = fd::open_read(c"/etc/passwd")
        .and_then(|file| fd::read_to_end(file.as_fd(), PASSWD_BYTES_MAX))
        .unwrap_or_default();
    let name = match name_in(&passwd, uid) {
        Some(name) => name,
        None => return lossy(Decimal::new(uid.into()).bytes()),
    };
    lossy(name)
}

fn name_in(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    fields(passwd, b'\n').find_map(|line| {
        let mut fields = fields(line, b':');
        let name = fields.next()?;
        (parse_decimal(fields.nth(1)?)? == u64::from(uid)).then_some(name)
    })
}

/// Whether SELinux is enabled here.
pub fn has_selinux() -> bool {
    // SAFETY: the path is terminated.
    cfg!(target_os = "linux")
        && unsafe { libc::access(c"/sys/fs/selinux/enforce".as_ptr(), libc::F_OK) } == 0
}

/// Changes our working directory.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is terminated.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(|_| ())
}

/// Whether we may list our working directory: after a change of user we often may not.
pub fn cwd_is_readable() -> bool {
    fd::open(c".", libc::O_RDONLY | libc::O_DIRECTORY).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number_and_odd_lines_are_passed_over() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\n\nbad\n+::::\ndeploy:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_in(passwd, 0), Some(&b"root"[..]));
        assert_eq!(name_in(passwd, 1000), Some(&b"deploy"[..]));
        assert_eq!(name_in(passwd, 7), None);
    }

    #[test]
    fn we_are_who_the_tools_say_we_are() {
        let said = |program: &str, argument: &str| {
            let output = std::process::Command::new(program).arg(argument).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        };
        assert_eq!(user_name(), said("id", "-un"));
        assert_eq!(uname().machine, said("uname", "-m"));
        assert_eq!(uname().sysname, said("uname", "-s"));
        assert_eq!(pid() as u32, std::process::id());
    }
}
