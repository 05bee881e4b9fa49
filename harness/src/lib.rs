//! How it is run: the orchestrator, its guests and what is done in them.
//!
//! Data flows one way: a `matrix::Plan` comes in, `images` gives disks, [`guest`] boots them, [`template`] forks them, [`ssh`] and [`payload`] work in
//! them, [`fanout`] decides who runs when, and everything that happens leaves as `reports::Event`s.

// `eprintln!` panics where standard error cannot be written.
#![warn(clippy::print_stderr)]

/// One line on standard error. Where that cannot be written there is nobody to tell: the exit code still says it.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub mod agent;
mod bench;
mod blocking;
pub mod cli;
pub mod events;
pub mod fanout;
mod gce;
pub mod guest;
pub mod host;
pub mod package_lock;
pub mod payload;
pub mod run;
mod runner;
pub mod scratch;
pub mod ssh;
pub mod template;
