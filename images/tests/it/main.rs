//! Downloads from a server of our own that does all that servers do wrong.

mod arrivals;
mod breaks;
mod place;
mod processes;
mod refusals;
mod server;
