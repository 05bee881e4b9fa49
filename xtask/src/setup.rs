//! `cargo xtask setup`: installs what this machine lacks.
//!
//! Three parts: [`facts`] inspects the machine, [`plan()`] decides (a plain function, tested with tables), this file prints the
//! plan and, on request, executes it.

mod facts;
mod item;
mod plan;
mod step;

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
};

use crate::failure::Failure;
use facts::Facts;
pub(crate) use item::Purpose;
use plan::{Plan, plan};

/// `setup [--test] [--arch ARCH] [--check] [--yes]`.
pub(crate) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let (mut purpose, mut check, mut yes) = (Purpose::Run, false, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("test") => purpose = Purpose::Test,
            lexopt::Arg::Long("arch") => match parser.value()?.to_str() {
                Some(item::FOREIGN) if purpose == Purpose::Run => purpose = Purpose::Foreign,
                Some(item::OWN | item::FOREIGN) => {}
                other => {
                    let what = other.unwrap_or("that");
                    return Err(not_ready(&format!("guests are for {} or {}, not {what}", item::OWN, item::FOREIGN)));
                }
            },
            lexopt::Arg::Long("check") => check = true,
            lexopt::Arg::Long("yes") => yes = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if check {
        let plan = plan(&Facts::of_this_machine(), purpose);
        print!("{plan}");
        return if plan.missing.is_empty() {
            Ok(())
        } else {
            Err(not_ready("something is missing; without --check, setup installs it"))
        };
    }
    if ensure(purpose, yes)? {
        println!("setup: everything is installed now");
    } else {
        print!("{}", Plan::default());
    }
    Ok(())
}

/// True if nestmatrix can be built and run here.
pub(crate) fn is_done() -> bool {
    plan(&Facts::of_this_machine(), Purpose::Run).missing.is_empty()
}

/// Installs what the purpose needs. Returns whether anything was installed.
pub(crate) fn ensure(purpose: Purpose, yes: bool) -> Result<bool, Failure> {
    let plan = plan(&Facts::of_this_machine(), purpose);
    if plan.missing.is_empty() {
        return Ok(false);
    }
    eprint!("{plan}");
    if plan.by_hand.is_some() {
        return Err(not_ready("setup cannot do this here: install it yourself, then run the same command again"));
    }
    if !yes && !agreed()? {
        return Err(not_ready("nothing was installed: run the commands above yourself, or add --yes"));
    }
    for step in &plan.steps {
        eprintln!("+ {step}");
        step.execute()?;
    }
    let rest = self::plan::plan(&Facts::of_this_machine(), purpose);
    if rest.missing.is_empty() {
        return Ok(true);
    }
    eprint!("{rest}");
    Err(not_ready(
        "every command succeeded, but the above is still missing: install it yourself, then run the same command again",
    ))
}

fn not_ready(what: &str) -> Failure {
    Failure::NotReady(what.to_owned())
}

/// Asks on a terminal; without one the answer is no.
fn agreed() -> Result<bool, Failure> {
    let unreadable = |source| Failure::File { path: "the terminal".into(), source };
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Ok(false);
    }
    eprint!("Run these commands now? [y/N] ");
    std::io::stderr().flush().map_err(unreadable)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(unreadable)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
