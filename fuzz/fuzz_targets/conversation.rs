//! Two stacks with anything in between: see the module, which the core's own tests share.
#![no_main]

#[path = "../../stack/core/tests/middle/mod.rs"]
mod middle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|program: &[u8]| {
    middle::run(program, middle::Dialect::Rich);
});
