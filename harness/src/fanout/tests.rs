//! The dispatcher without a machine.

mod dispatch;
