//! The matrix file from its author's view: its expansion, and its error messages.

mod expansion;
mod folder;
mod guests;
mod manual;
mod mistakes;
mod mutations;
mod network;
mod payload;
mod plan_file;
mod repositories;
mod runners;
mod schema;
mod sources;
mod values;
