//! Links the core into a program without the standard library: no threads, no clock, no sockets, no files
//! are to be had from anything in it.
//!
//! It has a panic handler and an allocator of its own. If the core, or anything that it depends on, drew in
//! `std`, there would be two panic handlers, and this would not build. That works on any target.
#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

use anabranch_core as _;

struct NoMemory;

// SAFETY: an allocator may refuse every request; nothing is ever allocated, so nothing is freed.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _memory: *mut u8, _layout: Layout) {}
}

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;

#[panic_handler]
fn stop(_panic: &PanicInfo<'_>) -> ! {
    loop {}
}
