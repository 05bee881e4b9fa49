//! Places, and the pool of machines above them, without a machine.

mod fake;
mod frozen;
mod pool;
