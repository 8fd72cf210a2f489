//! System calls. All `unsafe` of the library, and the names `libc` and `polling`, are below here;
//! the floors above see safe functions only. This page is the list of what may be unsafe.

#[allow(unsafe_code)] // __errno_location
pub mod errno;
#[allow(unsafe_code)] // read, write, dup, open, close_range
pub mod fd;
#[allow(unsafe_code)] // getrlimit, setrlimit
pub mod limit;
#[allow(unsafe_code)] // pipe2, socketpair, eventfd
pub mod pipe;
#[allow(unsafe_code)] // the contract of polling::Poller::add; ppoll
pub mod poll;
#[allow(unsafe_code)] // pthread_create
pub mod thread;
