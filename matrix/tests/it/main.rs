//! The matrix file as its author meets it: what it expands to, and what is said when it is wrong.

mod expansion;
mod folder;
mod guests;
mod mistakes;
mod mutations;
mod payload;
mod plan_file;
mod schema;
mod sources;
mod values;
