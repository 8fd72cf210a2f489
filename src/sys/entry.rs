//! The start of the stock agent: a C `main` and an allocator of its own. What std does before a
//! Rust `main` (handlers, names, the arguments' copy) is as large as a tenth of the agent and
//! serves it nothing: it looks after its descriptors and signals itself.

use std::ffi::CStr;

use libc::{c_char, c_int};

#[cfg(target_os = "linux")]
pub use super::heap::Heap;
pub use super::signal::exit_now;

/// Makes an executable the stock agent, and nothing else.
#[macro_export]
#[doc(hidden)]
macro_rules! __stock_agent {
    () => {
        #[cfg(target_os = "linux")]
        #[global_allocator]
        static HEAP: $crate::__private::Heap = $crate::__private::Heap::new();

        // The linker takes this one.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: ::std::ffi::c_int,
            arguments: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: C's start-up code calls this, once, with the arguments of the process.
            unsafe { $crate::__private::enter(count, arguments, $crate::__private::stock_agent) }
        }

        // In place of the C library's, which flushes files that nobody has. What ends the process
        // finds this one.
        #[cfg(target_env = "musl")]
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn exit(status: ::std::ffi::c_int) -> ! {
            $crate::__private::exit_now(status)
        }
    };
}

/// Calls `main` with copies of the arguments.
///
/// # Safety
/// `arguments` are `count` terminated texts.
pub unsafe fn enter(
    count: c_int,
    arguments: *const *const c_char,
    main: fn(Vec<Vec<u8>>) -> c_int,
) -> c_int {
    let copy = |i| {
        // SAFETY: it is less than their number.
        let argument = unsafe { arguments.add(i) };
        // SAFETY: as above.
        let argument = unsafe { *argument };
        // SAFETY: a terminated text.
        unsafe { CStr::from_ptr(argument) }.to_bytes().to_vec()
    };
    main((0..usize::try_from(count).unwrap_or(0)).map(copy).collect())
}
