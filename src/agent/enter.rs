//! How a process becomes one of a container's, before it is an agent: it asks the container's tool
//! for the first process there, enters that one's namespaces and root, and goes on in a child, as a
//! user of the container. Neither a shell nor a file of the container is executed.

use std::os::fd::AsFd;

use crate::error::Exit;
use crate::limits::CONTAINER_FILE_BYTES_MAX;
use crate::stock;
use crate::sys::errno::Errno;
use crate::sys::namespace::{Place, fail, go_on_in_child, live_with};
use crate::sys::text::{c_string, number_behind};
use crate::sys::{environment, fd, host, signal, users};

/// Becomes a process of the container that `orders` lead to: the user's name there; what stands in
/// front of the process number in the tool's answer; the tool, and its arguments. Without orders
/// nothing happens. Returns in a child of this process. Where it fails, a line on standard error
/// says so, which the recipe has hints for, and this process ends.
pub(super) fn enter(orders: &[Vec<u8>]) {
    let [name, label, tool @ ..] = orders else { return };
    let parent = host::parent();
    let pid = first_process(tool, label).unwrap_or_else(|errno| match errno {
        // As a shell says it.
        Errno::NOENT => signal::exit_now(127),
        errno => fail(b"tool", errno),
    });
    // Where none runs, some tools say 0.
    if pid == 0 {
        fail(b"stopped", Errno::SRCH);
    }
    let place = Place::open(pid);
    place.enter();
    // Read while we may.
    let (passwd, group) = (place.read(c"/etc/passwd"), place.read(c"/etc/group"));
    let user = users::find(&passwd, name).unwrap_or_else(|| fail(b"users", Errno::NOENT));
    let groups = users::groups(&group, name, user.gid);
    place.enter_users();
    let guard = go_on_in_child(parent);
    place.become_user(user.uid, user.gid, &groups);
    live_with(guard);
    let home = if user.home.is_empty() { b"/" } else { user.home };
    let shell = if user.shell.is_empty() { b"/bin/sh" } else { user.shell };
    environment::replace(&[
        b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0HOME=",
        home,
        b"\0SHELL=",
        shell,
        b"\0LOGNAME=",
        name,
        b"\0USER=",
        name,
        b"\0",
    ]);
    // Where that fails we stay at the root.
    let _ = host::chdir(&c_string(home).unwrap_or_default());
}

/// Asks the tool, which says to our standard error what it has to say. It ends with us if it takes
/// too long.
fn first_process(tool: &[Vec<u8>], label: &[u8]) -> Result<u64, Errno> {
    fd::fill_missing_stdio()?;
    let (mut process, answer) = stock::start_tool(tool, fd::stderr())?;
    let answer = fd::read_to_end(answer.as_fd(), CONTAINER_FILE_BYTES_MAX)?;
    match process.wait()? {
        Exit::Code(0) => Ok(number_behind(&answer, label, 10).unwrap_or(0)),
        // It has said why.
        Exit::Code(code) => signal::exit_now(code),
        Exit::Signal(number) => signal::exit_now(128 + number),
    }
}
