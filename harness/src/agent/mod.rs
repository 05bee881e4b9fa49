//! What runs cells on the machine where guests run, for an orchestrator at the other end of a line.
//!
//! On another machine it is this program, started there as `nestmatrix agent`; on this machine it is a task of the orchestrator.
//!
//! ```text
//! protocol  what both sides say
//! link      the orchestrator's end of the line (remote: to another machine, wire: what that goes over)
//! orders    messages to the agent              say: messages from it
//! serve     the agent on another machine: makes it ready     bundle: what it is given    proxy: to repositories, for its guests
//! shared    the same on a machine that is not its own    receive: takes images (send) and the bundle there, or fetches them (fetch; coming: both)
//! worker    runs the cells, wherever it is     files: brings logs and artifacts back
//! ```

mod broken;
pub(crate) mod coming;
pub(crate) mod fetch;
mod files;
pub(crate) mod job_bundle;
mod link;
mod orders;
pub mod protocol;
mod proxy;
pub(crate) mod receive;
mod remote;
mod say;
mod send;
mod serve;
pub(crate) mod shared;
mod wire;
mod worker;

pub(crate) use broken::Broken;
pub(crate) use files::Received;
pub(crate) use link::Link;
#[cfg(test)]
pub(crate) use orders::Orders;
#[cfg(test)]
pub(crate) use say::Say;
pub(crate) use send::send_image;
pub use serve::{Ground, serve};
pub(crate) use wire::{PIECES, Wire};
pub(crate) use worker::{Results, Worker};
