//! System calls. All `unsafe` of the library, and the names `libc` and `polling`, are below here;
//! the floors above see safe functions only. This page is the list of what may be unsafe.

#[allow(unsafe_code)] // the thread's error number
pub mod errno;
#[allow(unsafe_code)] // unsetenv
pub mod environment;
#[allow(unsafe_code)] // read, write, dup, open, close_range
pub mod fd;
pub mod file;
#[allow(unsafe_code)] // getrlimit, setrlimit
pub mod limit;
#[allow(unsafe_code)] // pipe2, socketpair, eventfd
pub mod pipe;
#[allow(unsafe_code)] // posix_openpt and termios
pub mod pty;
#[allow(unsafe_code)] // epoll, or the contract of polling::Poller::add; ppoll
pub mod poll;
#[allow(unsafe_code)] // poll
pub mod ready;
#[allow(unsafe_code)] // pthread_create, pthread_sigmask
pub mod thread;
#[allow(unsafe_code)] // clone with our own memory; the environment
pub mod spawn;
#[allow(unsafe_code)] // what a child does before exec
pub mod postfork;
#[allow(unsafe_code)] // waitpid, kill
pub mod wait;
#[allow(unsafe_code)] // dispositions, masks, prctl, setsid
pub mod signal;
#[allow(unsafe_code)] // handlers that write to a pipe
pub mod heard;
#[allow(unsafe_code)] // termios, the size of a terminal
pub mod terminal;
#[allow(unsafe_code)] // what a process does when it aborts, or exits
pub mod stdio;
#[allow(unsafe_code)] // fstat, isatty
pub mod leave;
#[allow(unsafe_code)] // clone without a signal
pub mod guard;
#[allow(unsafe_code)] // fork
pub mod fork;
#[allow(unsafe_code)] // madvise
pub mod pages;
#[allow(unsafe_code)] // memfd_create
pub mod memfd;
#[allow(unsafe_code)] // uname and ids
pub mod host;
#[allow(unsafe_code)] // clock_gettime
pub mod clock;
#[allow(unsafe_code)] // getrandom
pub mod random;
#[allow(unsafe_code)] // writes over our arguments
pub mod title;
#[allow(unsafe_code)] // reads the arguments that C gives
pub mod entry;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // mmap, and what lies in it
pub mod heap;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // setns, chroot, fork, capabilities, a user's numbers
pub mod namespace;
#[cfg(not(target_os = "linux"))]
pub mod no_namespace;
#[cfg(not(target_os = "linux"))]
pub use no_namespace as namespace;
#[allow(unsafe_code)] // a text for C whose bytes were looked at
pub mod text;
pub mod users;
#[cfg(test)]
#[allow(unsafe_code)] // seccomp
pub mod testing;
#[cfg(test)]
#[allow(unsafe_code)] // closes what nobody else uses
mod spawn_tests;
