//! From the events of a run to what guests of each image got from repositories. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use egress::{PackageName, PackagePin, Pins, file_url};
use matrix::{CellId, Digest, Plan};
use reports::{EventKind, NetworkRequest, RequestOutcome, Verdict};

use crate::{
    fanout::{MOST_TOLD, image_reaches_repositories},
    package_lock::LockedImage,
};

/// What guests of one image got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) locked: LockedImage,
    /// Hosts of https servers that were connected to: what came from there is not seen.
    pub(super) unseen: BTreeSet<String>,
}

/// The events of a run as far as they were seen.
pub(super) struct Seen<'a> {
    plan: &'a Plan,
    /// Digests of images by catalog name.
    digests: HashMap<String, Digest>,
    /// Images by template.
    templates: HashMap<Digest, String>,
    /// How many requests of each template are known.
    told: HashMap<Digest, u64>,
    verdicts: HashMap<CellId, Verdict>,
    images: BTreeMap<String, Requests>,
    interrupted: Option<String>,
}

/// What guests of one image asked for.
#[derive(Default)]
struct Requests {
    /// The content that each URL had last.
    digests: BTreeMap<String, Digest>,
    served: BTreeSet<String>,
    failed: BTreeMap<String, String>,
    unseen: BTreeSet<String>,
    /// There were more than are on record.
    more: bool,
}

impl<'a> Seen<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let (digests, templates, told, verdicts, images) = Default::default();
        Self { plan, digests, templates, told, verdicts, images, interrupted: None }
    }

    pub(super) fn see(&mut self, event: EventKind) {
        match event {
            EventKind::RunResumed { .. } => self.interrupted = None,
            EventKind::RunInterrupted { signal } => self.interrupted = Some(reports::clean::line(&signal)),
            EventKind::ImageReady { image, digest, .. } => drop(self.digests.insert(image, digest)),
            EventKind::TemplateStarted { template, image, .. } => drop(self.templates.insert(template, image)),
            EventKind::TemplateRequested { template, request, .. } => {
                let told = self.told.entry(template).or_default();
                *told += 1;
                let more = *told >= MOST_TOLD;
                if let Some(requests) = self.templates.get(&template).map(|image| self.images.entry(image.clone())) {
                    let requests = requests.or_default();
                    requests.more |= more;
                    requests.add(request);
                }
            }
            EventKind::NetworkRequested { cell, request, .. } => {
                if let Some(requests) = self.of_cell(&cell) {
                    requests.add(request);
                }
            }
            EventKind::NetworkNotRecorded { cell, .. } => {
                if let Some(requests) = self.of_cell(&cell) {
                    requests.more = true;
                }
            }
            EventKind::CellFinished { cell, verdict } => drop(self.verdicts.insert(cell, verdict)),
            _ => {}
        }
    }

    fn of_cell(&mut self, id: &CellId) -> Option<&mut Requests> {
        let cell = self.plan.cells.iter().find(|cell| cell.id == *id)?;
        Some(self.images.entry(cell.image.clone()).or_default())
    }

    /// What guests of each image of the plan got that may get something; or why not all of it is known.
    ///
    /// # Errors
    ///
    /// The run was interrupted: nothing is known of any image. In words.
    pub(super) fn resolved(mut self) -> Result<BTreeMap<String, Result<Resolved, String>>, String> {
        if let Some(signal) = self.interrupted {
            return Err(format!("the run was interrupted ({signal})"));
        }
        let used = self.plan.images.iter().filter(|image| image_reaches_repositories(self.plan, &image.name));
        let resolved = used.map(|image| {
            let requests = self.images.remove(&image.name).unwrap_or_default();
            let cells = self.plan.cells.iter().filter(|cell| cell.image == image.name);
            let open = cells.filter_map(|cell| match self.verdicts.get(&cell.id) {
                Some(Verdict::Error { phase, .. }) => Some(format!("{} ended as error({phase})", cell.id)),
                Some(Verdict::NotRun { .. }) | None => Some(format!("{} did not run", cell.id)),
                Some(Verdict::Passed | Verdict::Failed { .. } | Verdict::Skipped { .. }) => None,
            });
            let digest = self.digests.get(&image.from).copied();
            (image.name.clone(), requests.resolved(digest, open.into_iter().next()))
        });
        Ok(resolved.collect())
    }
}

impl Requests {
    fn add(&mut self, NetworkRequest { host, port, path, outcome, .. }: NetworkRequest) {
        let url = match &path {
            Some(path) => file_url(&host, port, path),
            None => format!("https://{host}:{port}"),
        };
        match outcome {
            RequestOutcome::Served { digest, .. } => {
                if let Some(digest) = digest {
                    self.digests.insert(url.clone(), digest);
                }
                self.served.insert(url);
            }
            RequestOutcome::Tunnelled => {
                self.unseen.insert(host);
                self.served.insert(url);
            }
            RequestOutcome::Failed { reason } => drop(self.failed.insert(url, reason)),
            // Nobody gets that in a locked run either.
            RequestOutcome::Refused { .. } => {}
        }
    }

    /// `open`: a cell that may have wanted more.
    fn resolved(self, image: Option<Digest>, open: Option<String>) -> Result<Resolved, String> {
        let Self { digests, served, failed, unseen, more } = self;
        if let Some(open) = open {
            return Err(open);
        }
        // What failed and was had afterwards is there, and so is a package that another mirror had. Lists are called alike everywhere.
        let file = |url: &str| PackageName::of(url).and_then(|_| url.rsplit('/').next().map(str::to_owned));
        let packages: BTreeSet<_> = served.iter().filter_map(|url| file(url)).collect();
        let is_had = |url: &String| served.contains(url) || file(url).is_some_and(|file| packages.contains(&file));
        if let Some((url, reason)) = failed.into_iter().find(|(url, _)| !is_had(url)) {
            return Err(format!("{}: {}", reports::clean::line(&url), reports::clean::line(&reason)));
        }
        if more {
            return Err(format!("a guest made more requests than the {MOST_TOLD} that are recorded"));
        }
        let Some(image) = image else { return Err("it is not known which image its guests had".to_owned()) };
        let mut pins = Pins::default();
        for (url, digest) in digests {
            match PackageName::of(&url) {
                Some(PackageName { name, version }) => {
                    pins.packages.insert(url, PackagePin { name, version, digest });
                }
                None => drop(pins.metadata.insert(url, digest)),
            }
        }
        Ok(Resolved { locked: LockedImage { image, pins }, unseen })
    }
}

#[cfg(test)]
mod tests {
    use reports::{ContentSource, Phase};

    use super::*;

    fn plan() -> Plan {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.toml");
        std::fs::write(folder.path().join("a.deb"), "a").unwrap();
        let matrix = "images = ['a', 'b']\npackage = { name = 'p', artifacts = ['a.deb'] }\n[[suite]]\nname = 's'\ninline = 'true'\n";
        std::fs::write(&file, matrix).unwrap();
        matrix::load(&file, &["a", "b"]).unwrap().plan
    }

    fn id(cell: &str) -> CellId {
        cell.to_owned().try_into().unwrap()
    }

    fn request(path: &str, outcome: RequestOutcome) -> NetworkRequest {
        NetworkRequest {
            method: "GET".to_owned(),
            host: "d.test".to_owned(),
            port: 80,
            path: Some(path.to_owned()),
            outcome,
            bytes: 0,
            elapsed_ms: 0,
        }
    }

    fn served(content: &str) -> RequestOutcome {
        let digest = Some(Digest::of(content.as_bytes()));
        RequestOutcome::Served { status: 200, source: ContentSource::Server, digest }
    }

    fn failed() -> RequestOutcome {
        RequestOutcome::Failed { reason: "timeout".to_owned() }
    }

    fn of_cell(path: &str, outcome: RequestOutcome) -> EventKind {
        let (phase, request) = (Phase::Install, request(path, outcome));
        EventKind::NetworkRequested { cell: id("a.s"), attempt: 1, phase, request }
    }

    fn finished(cell: &str, verdict: Verdict) -> EventKind {
        EventKind::CellFinished { cell: id(cell), verdict }
    }

    /// A run of two images whose cells pass, with these events in the middle.
    fn run(events: Vec<EventKind>) -> Result<BTreeMap<String, Result<Resolved, String>>, String> {
        let plan = plan();
        let mut seen = Seen::new(&plan);
        for image in ["a", "b"] {
            let digest = Digest::of(image.as_bytes());
            seen.see(EventKind::ImageReady { image: image.to_owned(), digest, cached: true, elapsed_ms: 0 });
            seen.see(finished(&format!("{image}.s"), Verdict::Passed));
        }
        events.into_iter().for_each(|event| seen.see(event));
        seen.resolved()
    }

    fn why(events: Vec<EventKind>) -> String {
        run(events).unwrap()["a"].clone().unwrap_err()
    }

    #[test]
    fn what_cells_and_templates_of_an_image_got_is_pinned_for_it_and_for_no_other() {
        let template = Digest::of(b"template");
        let not_found = RequestOutcome::Served { status: 404, source: ContentSource::Server, digest: None };
        let resolved = run(vec![
            of_cell("/Packages", served("list of before")),
            of_cell("/Packages", served("list")),
            of_cell("/x_1%2b2_all.deb", failed()),
            of_cell("/x_1%2b2_all.deb", served("x")),
            of_cell("/missing", not_found),
            of_cell("/evil", RequestOutcome::Refused { reason: "no".to_owned() }),
            EventKind::TemplateStarted { runner: 1, template, image: "a".to_owned() },
            EventKind::TemplateRequested { runner: 1, template, request: request("/y_1_all.deb", served("y")) },
        ]);
        let resolved = resolved.unwrap();
        let Resolved { locked: LockedImage { image, pins }, unseen } = resolved["a"].clone().unwrap();
        assert_eq!((image, unseen.len()), (Digest::of(b"a"), 0));
        assert_eq!(pins.metadata, [("http://d.test/Packages".to_owned(), Digest::of(b"list"))].into());
        let packages: Vec<_> = pins.packages.values().map(|pin| (&*pin.name, &*pin.version, pin.digest)).collect();
        assert_eq!(packages, [("x", "1+2", Digest::of(b"x")), ("y", "1", Digest::of(b"y"))]);
        assert_eq!(resolved["b"].as_ref().unwrap().locked.pins, Pins::default());
    }

    #[test]
    fn an_image_of_which_not_everything_is_known_is_not_pinned() {
        assert_eq!(why(vec![of_cell("/x_1_all.deb", failed())]), "http://d.test/x_1_all.deb: timeout");
        let elsewhere = vec![of_cell("/a/x_1_all.deb", failed()), of_cell("/b/x_1_all.deb", served("x"))];
        assert!(run(elsewhere).unwrap()["a"].is_ok(), "another mirror had it");
        let another = vec![of_cell("/a/InRelease", failed()), of_cell("/b/InRelease", served("x"))];
        assert_eq!(why(another), "http://d.test/a/InRelease: timeout", "it is the list of something else");
        let error = Verdict::Error { phase: Phase::Install, reason: "no".to_owned() };
        assert_eq!(why(vec![finished("a.s", error)]), "a.s ended as error(install)");
        let not_run = Verdict::NotRun { reason: "no".to_owned() };
        assert_eq!(why(vec![finished("a.s", not_run)]), "a.s did not run");
        let cell = id("a.s");
        let more = EventKind::NetworkNotRecorded { cell, attempt: 1, phase: Phase::Install, count: 1 };
        assert!(why(vec![more]).contains("more requests"));
        let failed = Verdict::Failed { phase: Phase::Test, reason: "no".to_owned() };
        assert!(run(vec![finished("a.s", failed)]).unwrap()["a"].is_ok(), "a test that fails had its packages");
    }

    #[test]
    fn an_interrupted_run_pins_nothing_until_it_is_resumed() {
        let interrupted = EventKind::RunInterrupted { signal: "SIGINT".to_owned() };
        assert!(run(vec![interrupted.clone()]).unwrap_err().contains("SIGINT"));
        assert!(run(vec![interrupted, EventKind::RunResumed { version: "1".to_owned() }]).is_ok());
    }

    #[test]
    fn hosts_whose_content_is_not_seen_are_named() {
        let mut tunnelled = request("/", RequestOutcome::Tunnelled);
        (tunnelled.path, tunnelled.port) = (None, 443);
        let cell = id("a.s");
        let event = EventKind::NetworkRequested { cell, attempt: 1, phase: Phase::Install, request: tunnelled };
        assert_eq!(run(vec![event]).unwrap()["a"].as_ref().unwrap().unseen, ["d.test".to_owned()].into());
    }
}
