//! How do we speak with Compute Engine?
//!
//! ```text
//! settings  project, zone and endpoints as `gcloud` has them    auth     Application Default Credentials
//! client    requests: retried, recorded, explained (error)      calls    which ones there are; compute makes them (resource)
//! series    which machine types can nest (data: series.toml)    choose   the machine type for a plan
//! request   the body that creates an L1; pure                    price    what it costs an hour                 
//! ```
//!
//! Nothing here knows of runners, plans or guests.

mod auth;
mod calls;
mod choose;
mod client;
mod compute;
mod error;
mod price;
mod request;
mod resource;
mod series;
mod settings;

pub(crate) use calls::{Calls, InZone};
pub(crate) use choose::{choose, shape};
pub(crate) use client::{Call, Client};
pub(crate) use compute::{Compute, Enforced};
pub(crate) use error::{ApiError, ApiErrorKind};
pub(crate) use price::Priced;
pub(crate) use request::{InstanceSpec, OURS, OWNER_LABEL, RUN_LABEL, is_cache};
pub(crate) use resource::{GuestAttribute, Instance, MachineType, Operation};
pub(crate) use series::{Series, Suitability, series};
#[cfg(test)]
pub(crate) use settings::Endpoints;
pub(crate) use settings::Settings;
