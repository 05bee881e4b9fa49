//! A request that keeps to the contract, and lists.

use std::{collections::HashMap, sync::atomic::Ordering};

use serde_json::Value;

use super::{
    filter::Filter,
    refusal::Refusal,
    world::{Place, World},
};

/// What is asked.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: HashMap<String, String>,
    pub(super) query: Vec<(String, String)>,
    /// Null if there is none.
    pub(super) body: Value,
}

impl Call {
    /// A variable of the path.
    pub(super) fn at(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The zone it is about, which exists.
    pub(super) fn zone(&self, world: &World) -> Result<&str, Refusal> {
        self.project(world)?;
        let zone = self.at("zone");
        match world.setup.zones.iter().any(|known| known.name == zone) {
            true => Ok(zone),
            false => Err(Refusal::not_found(&format!("projects/{}/zones/{zone}", world.setup.project))),
        }
    }

    /// It is about the project there is.
    pub(super) fn project(&self, world: &World) -> Result<(), Refusal> {
        match self.at("project") == world.setup.project {
            true => Ok(()),
            false => Err(Refusal::not_found(&format!("projects/{}", self.at("project")))),
        }
    }

    /// The instance it is about, which exists.
    pub(super) fn instance(&self, world: &World) -> Result<Place, Refusal> {
        let place = Place::from((self.zone(world)?, self.at("instance")));
        match world.instances.get(&place) {
            Some(instance) if !instance.hidden.swap(false, Ordering::Relaxed) => Ok(place),
            _ => Err(Refusal::not_found(&path(world, &place, "instances"))),
        }
    }

    /// The page of these that it asks for, and the token of the next one.
    pub(super) fn page(&self, world: &World, all: Vec<Value>) -> Result<(Vec<Value>, Option<String>), Refusal> {
        let invalid = |name: &str| {
            let value = self.parameter(name).unwrap_or_default();
            Refusal::invalid(format!("Invalid value for field '{name}': '{value}'."))
        };
        let filter = Filter::parse(self.parameter("filter").unwrap_or_default()).ok_or_else(|| invalid("filter"))?;
        let number = |name: &str, text: &str| text.parse::<usize>().map_err(|_| invalid(name));
        let wanted = self.parameter("maxResults").map_or(Ok(500), |text| number("maxResults", text))?;
        let first = self.parameter("pageToken").map_or(Ok(0), |token| {
            number("pageToken", token.strip_prefix("page-").ok_or_else(|| invalid("pageToken"))?)
        })?;
        let matching: Vec<_> = all.into_iter().filter(|item| filter.takes(item)).collect();
        let next = first + wanted.clamp(1, world.setup.largest_page);
        let token = (next < matching.len()).then(|| format!("page-{next}"));
        Ok((matching.into_iter().skip(first).take(next - first).collect(), token))
    }
}

/// What a resource of a zone is called in messages.
pub(super) fn path(world: &World, place: &Place, kind: &str) -> String {
    format!("projects/{}/zones/{}/{kind}/{}", world.setup.project, place.zone, place.name)
}
