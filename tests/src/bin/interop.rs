//! Runs the interop matrix and writes its page to standard output.

use std::process::ExitCode;

use anabranch_tests::interop::{ROWS, run_all, table};

fn main() -> ExitCode {
    let failed = run_all(ROWS, 6);
    for (name, error) in &failed {
        eprintln!("{name}: {error:#}");
    }
    if !failed.is_empty() {
        return ExitCode::FAILURE;
    }
    print!("{}", table());
    ExitCode::SUCCESS
}
