//! The constraint on nested virtualization, as both of its interfaces tell it.

use serde_json::{Value, json};

use super::{
    call::Call,
    refusal::Refusal,
    setup::{Policy, Setup},
    world::World,
};

const CONSTRAINT: &str = "compute.disableNestedVirtualization";

/// Organization Policy v2, `getEffectivePolicy`.
pub(super) fn v2(world: &World, call: &Call) -> Result<Value, Refusal> {
    let (project, policy) = (call.at("projectsId"), call.at("policiesId"));
    let denied = || {
        let at = format!("//cloudresourcemanager.googleapis.com/projects/{project}");
        Refusal::denied(format!("Permission 'orgpolicy.policy.get' denied on resource '{at}' (or it may not exist)."))
    };
    if !is_own(world, project) || policy != CONSTRAINT {
        return Err(denied());
    }
    let enforce = match world.setup.policy_v2 {
        Policy::Unreadable => return Err(denied()),
        policy => policy == Policy::Enforced,
    };
    let name = format!("projects/{}/policies/{CONSTRAINT}", Setup::NUMBER);
    Ok(json!({ "name": name, "spec": { "rules": [{ "enforce": enforce }] } }))
}

/// Resource Manager v1, `getEffectiveOrgPolicy`.
pub(super) fn v1(world: &World, call: &Call) -> Result<Value, Refusal> {
    let constraint = format!("constraints/{CONSTRAINT}");
    if !is_own(world, call.at("projectsId")) || world.setup.policy_v1 == Policy::Unreadable {
        return Err(Refusal::denied("The caller does not have permission"));
    }
    if call.body["constraint"] != constraint {
        return Err(Refusal::invalid("Request contains an invalid argument."));
    }
    // A field that is false is left out.
    let policy = if world.setup.policy_v1 == Policy::Enforced { json!({ "enforced": true }) } else { json!({}) };
    Ok(json!({ "constraint": constraint, "booleanPolicy": policy }))
}

fn is_own(world: &World, project: &str) -> bool {
    project == world.setup.project || project == Setup::NUMBER.to_string()
}
