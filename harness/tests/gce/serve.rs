//! From a request to its answer: faults first, then who asks, then the contract, then the work.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Shared,
    call::Call,
    compute, contract,
    faults::Fault,
    http::{Answer, Reply, Request},
    operation::seconds,
    policy,
    record::Recorded,
    refusal::Refusal,
};

/// `wait` returns after 2 minutes (its documentation), done or not.
const WAIT: f64 = 120.0;
/// And now and then much sooner.
const SHORT_WAIT: Duration = Duration::from_millis(20);
const TOKENS: &str = "/sts/token";
/// Followed by an instance's name: where its SSH server is. No part of the contract, and open to everybody.
const PORT: &str = "/test/ssh-port/";

pub(super) fn serve(shared: &Shared, request: &Request) -> Reply {
    if let Some(name) = request.path.strip_prefix(PORT) {
        let port = super::ssh_port(&shared.world(), name);
        return port.map_or_else(|| Answer::text(404, ""), |port| Answer::text(200, port.to_string())).into();
    }
    let found = contract::find(&request.verb, &request.segments());
    let is_exchange = request.verb == "POST" && request.path == TOKENS;
    let method = match &found {
        Some((method, _)) => method.id.as_str(),
        None if is_exchange => "sts.token",
        None => "unknown",
    };
    let entry = {
        let mut world = shared.world();
        world.record.requests.push(Recorded {
            method: method.to_owned(),
            path: request.path.clone(),
            query: request.query.clone(),
            body: body_for_people(request),
            status: 0,
        });
        world.record.requests.len() - 1
    };
    let fault = shared.world().faults.due(method);
    let answer = || match &found {
        Some((method, path)) => of_contract(shared, request, method, path.clone()),
        None if is_exchange => shared.world().tokens.exchange(request),
        // Whoever has no token yet looks here at the clock.
        None if request.path == "/compute/v1/" => Refusal::not_found("").answer(),
        None => {
            let what = format!("{} {}: no such method", request.verb, request.path);
            shared.world().record.violations.push(what.clone());
            Refusal::new(404, "notFound", what).answer()
        }
    };
    let reply = match fault {
        None => answer().into(),
        Some(Fault::Refuse(refusal)) => refusal.answer().into(),
        Some(Fault::DoAndRefuse(refusal)) => {
            answer();
            refusal.answer().into()
        }
        Some(Fault::Cut) => Reply::Cut,
        Some(Fault::DoAndCut) => {
            answer();
            Reply::Cut
        }
        Some(Fault::DoAndGarble) => {
            answer();
            Answer::text(200, "<html>").into()
        }
        Some(Fault::DoAndDelay(time)) => {
            let answer = answer();
            thread::sleep(time);
            answer.into()
        }
        Some(Fault::Delay(time)) => {
            thread::sleep(time);
            answer().into()
        }
    };
    if let Reply::Answer(answer) = &reply {
        shared.world().record.requests[entry].status = answer.status;
    }
    reply
}

fn body_for_people(request: &Request) -> Value {
    match request.body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&request.body)
            .unwrap_or_else(|_| String::from_utf8_lossy(&request.body).into_owned().into()),
    }
}

fn of_contract(
    shared: &Shared,
    request: &Request,
    method: &'static contract::Method,
    path: std::collections::HashMap<String, String>,
) -> Answer {
    if !shared.world().tokens.know(request) {
        return Refusal::unauthenticated().answer();
    }
    let mut wrong = method.wrong_parameters(&path, &request.query);
    let body = match request.body.is_empty() {
        true => None,
        false => match serde_json::from_slice::<Value>(&request.body) {
            Ok(body) => {
                let kind = request.header("content-type").unwrap_or_default();
                if kind.split(';').next().map(str::trim) != Some("application/json") {
                    wrong.push(format!("a body of the type '{kind}'"));
                }
                Some(body)
            }
            Err(error) => {
                wrong.push(format!("the body is no JSON: {error}"));
                Some(Value::Null)
            }
        },
    };
    wrong.extend(method.wrong_body(body.as_ref()));
    // Google's servers refuse it before anybody reads it (RFC 9110, 411 Length Required).
    if request.verb == "POST" && request.header("content-length").is_none() {
        wrong.push("a POST without Content-Length".to_owned());
    }
    if !wrong.is_empty() {
        let message = format!("Invalid request: {}", wrong.join("; "));
        shared.world().record.violations.extend(wrong.into_iter().map(|what| format!("{}: {what}", method.id)));
        return Refusal::invalid(message).answer();
    }
    let call = Call { method: &method.id, path, query: request.query.clone(), body: body.unwrap_or_default() };
    let result = work(shared, &call);
    shared.changed.notify_all();
    match result {
        Ok(value) => {
            let wrong =
                method.wrong_answer(&value).into_iter().map(|what| format!("{}: its answer: {what}", method.id));
            shared.world().record.violations.extend(wrong);
            Answer::json(200, &value)
        }
        Err(refusal) => refusal.answer(),
    }
}

fn work(shared: &Shared, call: &Call) -> Result<Value, Refusal> {
    match call.method {
        "compute.zoneOperations.wait" | "compute.globalOperations.wait" => wait(shared, call),
        "orgpolicy.projects.policies.getEffectivePolicy" => policy::v2(&shared.world(), call),
        "cloudresourcemanager.projects.getEffectiveOrgPolicy" => policy::v1(&shared.world(), call),
        _ => compute::serve(&mut shared.world(), call),
    }
}

/// Every second wait for an operation returns early: clients must not take the end of a wait for the end of the operation.
fn wait(shared: &Shared, call: &Call) -> Result<Value, Refusal> {
    let mut world = shared.world();
    let mut operation = compute::operation(&mut world, call)?;
    let name = operation["name"].as_str().unwrap_or_default().to_owned();
    let waits = world.operation(&name).map_or(0, |operation| {
        operation.waits += 1;
        operation.waits
    });
    let limit = if waits % 2 == 1 { SHORT_WAIT } else { seconds(&world.setup, WAIT) };
    let began = Instant::now();
    while operation["status"] != "DONE" && !shared.ends.load(std::sync::atomic::Ordering::SeqCst) {
        let Some(left) = limit.checked_sub(began.elapsed()) else { break };
        world = shared.changed.wait_timeout(world, left).map_or_else(|error| error.into_inner().0, |(world, _)| world);
        operation = compute::operation(&mut world, call)?;
    }
    Ok(operation)
}
