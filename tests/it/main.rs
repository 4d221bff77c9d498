//! The one integration test binary: tidiness, contracts, and the built binary on a real engine.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests stand outside: they touch files and clocks, and fail by panicking"
)]

mod cli;
mod docs;
mod e2e;
mod engine_contract;
#[cfg(feature = "testing")]
mod fuzz;
mod hostile;
mod ledger_crash;
mod lockfile;
mod objects_contract;
mod packaging;
mod s3;
#[cfg(feature = "testing")]
mod sim;
mod support;
mod tidy;
