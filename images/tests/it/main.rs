//! Downloads from a test server that does everything servers do wrong.

mod arrivals;
mod breaks;
mod place;
mod processes;
mod refusals;
mod server;
