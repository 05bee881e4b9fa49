//! How do we speak with Compute Engine?
//!
//! ```text
//! settings  project, zone and endpoints as `gcloud` has them    auth     Application Default Credentials
//! client    requests: retried, recorded, explained (error)      compute  the calls, typed (resource)
//! series    which machine types can nest (data: series.toml)    choose   the machine type for a plan
//! request   the body that creates an L1; pure                 
//! ```
//!
//! Nothing here knows of runners, plans or guests.

mod auth;
mod choose;
mod client;
mod compute;
mod error;
mod request;
mod resource;
mod series;
mod settings;

pub(crate) use choose::{MachineShape, choose};
pub(crate) use client::Client;
pub(crate) use compute::{Compute, Enforced, InZone};
pub(crate) use error::{ApiError, ApiErrorKind};
pub(crate) use request::{InstanceSpec, OWNER_LABEL, RUN_LABEL};
pub(crate) use resource::{Instance, Operation};
pub(crate) use series::{Series, Suitability, series};
pub(crate) use settings::Settings;
