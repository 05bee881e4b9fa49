//! What a guest may reach: a proxy on its runner, the only way out of a guest whose network is `repositories`.
//!
//! ```text
//! link       a network card of the guest, as frames on a socket -> TCP connections to one address
//! guest      one guest's connections, as HTTP requests                    (tunnel: to https servers; account: what it has had)
//! policy     which of them are allowed                                    (address: which addresses never are)
//! fetch      gets each file once, however many guests want it             (immutable: what need not be asked for again)
//! locked     the same for a guest whose packages are pinned               (pins: which are; package_name: what a file's name says;
//!                                                                             snapshot: who has it when its server has not any more)
//! flight     one download, which guests share                             (content: what each of them reads of it; download: who does it)
//! upstream   asks the servers                                             (resolve: names, and which of their addresses may be reached)
//! cache      what was fetched, by its digest, for all guests and runs
//! ```
//!
//! Guests are hostile: every queue, buffer, count and wait here has a limit, and one guest's use of them takes nothing from others.

mod account;
mod address;
mod cache;
mod content;
mod download;
mod fetch;
mod flight;
mod guest;
mod immutable;
mod link;
mod locked;
mod package_name;
mod pins;
mod policy;
mod proxy;
mod resolve;
mod snapshot;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;

pub use account::Recorder;
pub use cache::cached;
pub use immutable::is_list;
pub use link::Card;
pub use package_name::PackageName;
pub use pins::{PackagePin, Pins, file_url, is_difference, is_file_url};
pub use policy::Policy;
pub use proxy::{Guest, Proxy, Settings, url};
pub use snapshot::Snapshot;
