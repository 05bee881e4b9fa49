//! The whole path with real parts: the real binary, real QEMU, real Debian guests.
//!
//! Images are built once into a store that is kept between test runs: `NESTMATRIX_TEST_STORE`, else
//! `target/<triple>/test-store`. Guests are heavy, so two of these tests run at a time, whatever the test runner does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod apt_repository;
mod arch;
mod arrivals;
mod bad_input;
mod blame;
mod cloud;
mod dependencies;
mod endings;
mod environments;
mod families;
mod faults;
mod gce;
mod gce_l1;
mod handover;
mod hardened;
mod hostile_network;
mod images;
mod lab;
mod locked;
mod names;
mod nested;
mod packages;
mod parts;
mod places;
mod reboots;
mod release;
mod repositories;
mod repository_server;
mod rootfs;
mod ssh_machine;
mod ssh_place;
mod stops;
mod store;
mod templates;

/// What stands in for Compute Engine.
#[path = "../gce/mod.rs"]
mod gce_server;

/// A private SSH server on this machine.
#[path = "../sshd/mod.rs"]
#[allow(dead_code, reason = "most of it is for the tests of sessions")]
mod sshd;

/// The server of the downloads' own tests.
#[path = "../../../images/tests/it/server.rs"]
#[expect(dead_code, reason = "most of what it can do wrong is tried there")]
mod server;
