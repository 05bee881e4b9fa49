//! The published contract, and checks of requests and answers against it.
//!
//! `contract/*.json` are Google's discovery documents (`compute:v1`, `orgpolicy:v2`, `cloudresourcemanager:v1`), reduced to the methods and
//! schemas that are used, without descriptions. Lists of operations, disks, image creation, global operations and `stop` were added by hand
//! in the same form. A request is checked more strictly than Google does: output-only properties are refused, too.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use regex_automata::meta::Regex;
use serde_json::{Map, Value};

/// Where each document's methods are served, and the document.
const DOCUMENTS: [(&str, &str); 3] = [
    ("compute/v1", include_str!("contract/compute-v1.json")),
    ("orgpolicy", include_str!("contract/orgpolicy-v2.json")),
    ("crm", include_str!("contract/cloudresourcemanager-v1.json")),
];

static METHODS: LazyLock<Vec<Method>> =
    LazyLock::new(|| DOCUMENTS.iter().flat_map(|(at, text)| read(at, text)).collect());

/// A method of the contract.
pub(super) struct Method {
    pub(super) id: String,
    verb: String,
    /// Of its path, each with its variables still in it.
    segments: Vec<String>,
    value: Value,
    schemas: std::sync::Arc<Map<String, Value>>,
}

fn read(at: &str, text: &str) -> Vec<Method> {
    let mut document: Value = serde_json::from_str(text).unwrap();
    let Value::Object(schemas) = document["schemas"].take() else { panic!("{at}: no schemas") };
    let schemas = std::sync::Arc::new(schemas);
    let methods = document["methods"].as_object().unwrap();
    let read = |(id, value): (&String, &Value)| Method {
        id: id.clone(),
        verb: value["httpMethod"].as_str().unwrap().to_owned(),
        segments: format!("{at}/{}", value["flatPath"].as_str().unwrap()).split('/').map(str::to_owned).collect(),
        value: value.clone(),
        schemas: schemas.clone(),
    };
    methods.iter().map(read).collect()
}

/// The method that a request is for, with the variables of its path. `segments`: decoded.
pub(super) fn find(verb: &str, segments: &[String]) -> Option<(&'static Method, HashMap<String, String>)> {
    METHODS.iter().filter(|method| method.verb == verb).find_map(|method| Some((method, method.variables(segments)?)))
}

impl Method {
    fn variables(&self, segments: &[String]) -> Option<HashMap<String, String>> {
        if segments.len() != self.segments.len() {
            return None;
        }
        let mut variables = HashMap::new();
        for (template, segment) in self.segments.iter().zip(segments) {
            match template.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
                Some((name, verb)) => {
                    let value = segment.strip_suffix(verb).filter(|value| !value.is_empty())?;
                    variables.insert(name.to_owned(), value.to_owned());
                }
                None if template == segment => {}
                None => return None,
            }
        }
        Some(variables)
    }

    /// What is wrong with the parameters of a request.
    pub(super) fn wrong_parameters(&self, path: &HashMap<String, String>, query: &[(String, String)]) -> Vec<String> {
        let mut wrong = Vec::new();
        let parameter = |name: &str, location: &str| {
            self.value["parameters"].get(name).filter(|parameter| parameter["location"] == location)
        };
        for (name, value) in path {
            // The flat path of newer interfaces has variables of its own.
            if let Some(parameter) = parameter(name, "path") {
                self.check(parameter, &Value::from(value.as_str()), name, Direction::Request, &mut wrong);
            }
        }
        for (index, (name, value)) in query.iter().enumerate() {
            let Some(parameter) = parameter(name, "query") else {
                wrong.push(format!("unknown query parameter '{name}'"));
                continue;
            };
            if query[..index].iter().any(|(earlier, _)| earlier == name) {
                wrong.push(format!("query parameter '{name}' is given twice"));
            }
            let parsed = match parameter["type"].as_str() {
                Some("string") => Value::from(value.as_str()),
                _ => value.parse().unwrap_or_else(|_| Value::from(value.as_str())),
            };
            self.check(parameter, &parsed, name, Direction::Request, &mut wrong);
        }
        wrong
    }

    /// What is wrong with the body of a request; `None`: it has none.
    pub(super) fn wrong_body(&self, body: Option<&Value>) -> Vec<String> {
        let mut wrong = Vec::new();
        match (self.value.get("request"), body) {
            (Some(schema), Some(body)) => self.check(schema, body, "resource", Direction::Request, &mut wrong),
            (Some(_), None) => wrong.push("the body is missing".to_owned()),
            (None, Some(body)) if body.as_object().is_none_or(|body| !body.is_empty()) => {
                wrong.push("a body where none belongs".to_owned());
            }
            (None, _) => {}
        }
        wrong
    }

    /// What is wrong with an answer.
    pub(super) fn wrong_answer(&self, body: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check(&self.value["response"], body, "answer", Direction::Answer, &mut wrong);
        wrong
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, direction: Direction, wrong: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            return self.check(&self.schemas[name], value, at, direction, wrong);
        }
        if let Some(options) = schema["enum"].as_array()
            && !options.contains(value)
        {
            return wrong.push(format!("'{at}': {value} is none of its values"));
        }
        let mut fails = |what: &str| wrong.push(format!("'{at}': {value} is {what}"));
        match schema["type"].as_str() {
            Some("any") => {}
            Some("string") => match value.as_str() {
                None => fails("no string"),
                Some(text) => {
                    if let Some(what) = wrong_text(schema, text) {
                        fails(&what);
                    }
                }
            },
            Some("integer") => {
                let range =
                    if schema["format"] == "uint32" { 0..=u32::MAX.into() } else { i32::MIN.into()..=i32::MAX.into() };
                if value.as_i64().is_none_or(|number: i64| !range.contains(&number)) {
                    fails("no 32-bit integer");
                }
            }
            Some("number") if value.is_number() => {}
            Some("boolean") if value.is_boolean() => {}
            Some("array") => match value.as_array() {
                None => fails("no array"),
                Some(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.check(&schema["items"], item, &format!("{at}[{index}]"), direction, wrong);
                    }
                }
            },
            Some("object") => match value.as_object() {
                None => fails("no object"),
                Some(object) => self.check_object(schema, object, at, direction, wrong),
            },
            kind => fails(&format!("no {}", kind.unwrap_or("value of a known type"))),
        }
    }

    fn check_object(
        &self,
        schema: &Value,
        object: &Map<String, Value>,
        at: &str,
        direction: Direction,
        wrong: &mut Vec<String>,
    ) {
        for (name, value) in object {
            let at = format!("{at}.{name}");
            let known = schema["properties"].get(name);
            match known.or_else(|| schema.get("additionalProperties")) {
                None => wrong.push(format!("unknown property '{at}'")),
                Some(known) if direction == Direction::Request && known["readOnly"] == true => {
                    wrong.push(format!("'{at}' is output only"));
                }
                Some(known) => self.check(known, value, &at, direction, wrong),
            }
        }
        for (name, known) in schema["properties"].as_object().into_iter().flatten() {
            let for_methods = known["annotations"]["required"].as_array();
            let is_required =
                for_methods.is_some_and(|methods| methods.iter().any(|method| *method == self.id.as_str()));
            if direction == Direction::Request && is_required && !object.contains_key(name) {
                wrong.push(format!("'{at}.{name}' is missing"));
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Request,
    Answer,
}

/// What is wrong with a string, as in "it is ...".
fn wrong_text(schema: &Value, text: &str) -> Option<String> {
    let fits = match schema["format"].as_str() {
        Some("int64") => text.parse::<i64>().is_ok(),
        Some("uint64") => text.parse::<u64>().is_ok(),
        Some("byte") => matches("[-A-Za-z0-9+/_]*={0,2}", text),
        Some("google-datetime") => text.parse::<jiff::Timestamp>().is_ok(),
        Some("google-duration") => matches(r"-?[0-9]+(\.[0-9]{1,9})?s", text),
        _ => true,
    };
    if !fits {
        return Some(format!("no {} in a string", schema["format"].as_str().unwrap_or_default()));
    }
    let pattern = schema["pattern"].as_str()?;
    (!matches(pattern, text)).then(|| format!("not of the form {pattern}"))
}

/// Whether all of the text is of that form.
fn matches(pattern: &str, text: &str) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    let form = known.entry(pattern.to_owned()).or_insert_with(|| Regex::new(&format!("^(?:{pattern})$")).unwrap());
    form.is_match(text)
}
