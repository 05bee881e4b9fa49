//! The dispatcher and an attempt without a machine.

mod attempt;
mod dispatch;
mod fake;
mod stage;
