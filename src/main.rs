//! The operator's tool and the supervisor of one guest.

use std::process::ExitCode;

fn main() -> ExitCode {
    narrows::cli::main(std::env::args_os())
}
