//! An instance that costs money, and its end: it is deleted when it is given back, when it is dropped in whatever way, and by Compute
//! Engine itself after its longest time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reports::EventKind;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    gce::{ApiError, ApiErrorKind, Calls, Client, Compute, InZone, Operation, Settings},
};

/// How long deleting may take: an operating system has up to 120 s to shut down.
pub(super) const DELETE: Duration = Duration::from_secs(240);
/// The same where nobody is left who could wait: it need not be gone, only be going.
const LAST_DELETE: Duration = Duration::from_secs(30);
/// How long the answer to a request for an instance is awaited when the run is stopped meanwhile.
const ANSWER: Duration = Duration::from_secs(20);
/// An instance that was asked for without an answer is looked for so long ...
const UNSURE: Duration = Duration::from_secs(60);
/// ... with this between.
const UNSURE_PAUSE: Duration = Duration::from_secs(3);

/// Name, zone and project of each instance that this process holds now: for its last words if it has to leave at once.
static HELD: Mutex<BTreeSet<[String; 3]>> = Mutex::new(BTreeSet::new());

/// A line for each instance that this process holds now.
pub(crate) fn still_held() -> Vec<String> {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.iter().map(|key| left(key, "its deletion was not waited for")).collect()
}

fn left([name, zone, project]: &[String; 3], why: &str) -> String {
    format!(
        "the instance {name} in {zone} may still be there: {why}; `nestmatrix gce cleanup --project {project}` deletes it"
    )
}

/// A project of Compute Engine, and how it is spoken with.
pub(crate) struct Cloud {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) project: String,
}

impl Cloud {
    pub(crate) fn calls(&self) -> Calls<'_> {
        Calls { endpoints: &self.settings.endpoints, project: &self.project }
    }

    pub(crate) fn compute(&self) -> Compute<'_> {
        Compute { client: &self.client, calls: self.calls() }
    }
}

/// What is known of an instance's creation.
#[derive(Clone, Debug)]
pub(super) enum Created {
    /// It was asked for, or is about to be, and there was no answer.
    Unknown,
    /// This operation creates it, or fails.
    Asked(String),
    Yes,
}

/// Why an instance was not created.
pub(super) enum Uncreated {
    Stopped,
    Failed(ApiError),
}

/// An instance of ours.
pub(super) struct Held {
    pub(super) cloud: Arc<Cloud>,
    pub(super) zone: String,
    pub(super) name: String,
    /// When it was asked for.
    pub(super) since: Instant,
    /// How long it lives at the most.
    pub(super) longest: Duration,
    /// Whom to tell of its end, and the number of its runner: once its beginning was told.
    pub(super) told: Option<(Events, u32)>,
    created: Created,
    /// It is gone, or all that can be done about it was done.
    gone: bool,
}

impl Held {
    /// One that is asked for next.
    pub(super) fn new(cloud: &Arc<Cloud>, zone: &str, name: String, longest: Duration) -> Self {
        let (cloud, zone, since) = (Arc::clone(cloud), zone.to_owned(), Instant::now());
        let held = Self { cloud, zone, name, since, longest, told: None, created: Created::Unknown, gone: false };
        HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(held.key());
        held
    }

    fn key(&self) -> [String; 3] {
        [self.name.clone(), self.zone.clone(), self.cloud.project.clone()]
    }

    pub(super) fn at(&self) -> InZone<'_> {
        InZone { zone: &self.zone, name: &self.name }
    }

    /// Asks for the instance, and waits until it is there. Whatever comes of it, it must be deleted.
    pub(super) async fn create(&mut self, body: Value, stop: &CancellationToken) -> Result<(), Uncreated> {
        if stop.is_cancelled() {
            self.is_gone();
            return Err(Uncreated::Stopped);
        }
        let cloud = Arc::clone(&self.cloud);
        let (compute, request) = (cloud.compute(), request_id());
        let answer = {
            let insert = compute.insert(InZone { zone: &self.zone, name: &self.name }, body, &request);
            tokio::pin!(insert);
            // It is not given up in the middle: whether there is an instance then, nobody would know.
            tokio::select! {
                biased;
                answer = &mut insert => answer,
                () = stop.cancelled() => tokio::time::timeout(ANSWER, insert).await.map_err(|_| Uncreated::Stopped)?,
            }
        };
        let operation = answer.map_err(|error| {
            // Refused at the first try is not created; whatever else happened, nobody knows.
            if error.refused {
                self.is_gone();
            }
            Uncreated::Failed(error)
        })?;
        if !operation.name.is_empty() {
            self.created = Created::Asked(operation.name.clone());
        }
        let what = format!("create the instance {} in {}", self.name, self.zone);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Uncreated::Stopped),
            done = compute.done(&what, Some(&self.zone), operation) => done.map_err(Uncreated::Failed)?,
        }
        self.created = Created::Yes;
        Ok(())
    }

    /// Deletes it and waits until it is gone. Returns what may be left, for people.
    pub(super) async fn delete(&mut self) -> Option<String> {
        if self.gone {
            return None;
        }
        let deleted = tokio::time::timeout(DELETE, deleted(&self.cloud, self.at(), &self.created)).await;
        // Tried once, and told: what is dropped later says the same.
        self.is_gone();
        let why = match deleted {
            Ok(Ok(())) => {
                if let Some((events, runner)) = &self.told {
                    let held_ms = self.since.elapsed().as_millis() as u64;
                    events.send(EventKind::MachineDeleted { runner: *runner, held_ms });
                }
                return None;
            }
            Ok(Err(why)) => why,
            Err(_) => format!("timeout: it was not deleted within {} s", DELETE.as_secs()),
        };
        let minutes = self.longest.saturating_sub(self.since.elapsed()).as_secs().div_ceil(60);
        Some(format!("{}, and Compute Engine does in {minutes} min", left(&self.key(), &why)))
    }

    fn is_gone(&mut self) {
        self.gone = true;
        HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key());
    }
}

/// Deletes an instance and waits until it is gone.
pub(super) async fn deleted(cloud: &Cloud, at: InZone<'_>, created: &Created) -> Result<(), String> {
    let Some(operation) = ending(cloud, at, created).await? else { return Ok(()) };
    let what = format!("delete the instance {} in {}", at.name, at.zone);
    match cloud.compute().done(&what, Some(at.zone), operation).await {
        Err(error) if error.kind != ApiErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Asks for an instance's end, as soon as it is there; `None`: it is not, and will not be.
async fn ending(cloud: &Cloud, at: InZone<'_>, created: &Created) -> Result<Option<Operation>, String> {
    let (compute, began, mut created, mut may_come) = (cloud.compute(), Instant::now(), created.clone(), true);
    loop {
        match compute.delete(at, &request_id()).await {
            Ok(operation) => return Ok(Some(operation)),
            Err(error) if error.kind != ApiErrorKind::NotFound => return Err(error.to_string()),
            Err(_) => {}
        }
        match &created {
            _ if !may_come => return Ok(None),
            Created::Yes => return Ok(None),
            Created::Asked(name) => {
                let operation = Operation { name: name.clone(), ..Operation::default() };
                let what = format!("wait for the creation of {} in {}", at.name, at.zone);
                match compute.over(&what, Some(at.zone), operation).await {
                    // What the creation came to, the next look shows.
                    Ok(_) => may_come = false,
                    Err(_) => created = Created::Unknown,
                }
            }
            Created::Unknown => {
                tokio::time::sleep(UNSURE_PAUSE).await;
                may_come = began.elapsed() < UNSURE;
            }
        }
    }
}

impl Drop for Held {
    /// A panic, or a run that was dropped: nobody can wait, and still it must not stay.
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let (project, settings) = (self.cloud.project.clone(), self.cloud.settings.clone());
        let (zone, name, created) = (self.zone.clone(), self.name.clone(), self.created.clone());
        let last = move || {
            // Connections and tokens belong to the runtime that made them.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            let client = Client::new(&settings).map_err(|error| error.to_string())?;
            let cloud = Cloud { client, settings, project };
            let at = InZone { zone: &zone, name: &name };
            let ending = async { tokio::time::timeout(LAST_DELETE, ending(&cloud, at, &created)).await };
            runtime.block_on(ending).map_err(|error| error.to_string())?.map(drop)
        };
        let ended = std::thread::Builder::new().name("delete".into()).spawn(last).map(std::thread::JoinHandle::join);
        let why = match ended {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(why))) => Some(why),
            Ok(Err(_)) => Some("a panic".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            say!("{}", left(&self.key(), &why));
        }
        self.is_gone();
    }
}

/// An id by which the service knows a request again (RFC 9562, version 4).
pub(super) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::{Ipv4Addr, TcpListener, TcpStream},
        process::Command,
    };

    use super::*;

    /// Where the cloud is: set in the process that drops.
    const CLOUD: &str = "NESTMATRIX_TEST_CLOUD";

    /// Answers one request as the token service and Compute Engine do; its first line.
    fn answer(mut stream: TcpStream) -> std::io::Result<String> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let (mut first, mut length) = (String::new(), 0);
        lines.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            match line.trim().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap_or(0),
                _ if line.trim().is_empty() => break,
                _ => {}
            }
        }
        lines.take(length).read_to_end(&mut Vec::new())?;
        let body = match first.contains("/token") {
            true => r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#,
            false => r#"{"name":"operation-1","status":"DONE"}"#,
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        Ok(first)
    }

    #[test]
    fn an_instance_whose_holder_panics_is_deleted() {
        // Credentials are found by the environment, which only a process of its own can have.
        if let Ok(compute) = std::env::var(CLOUD) {
            let settings = Settings::read();
            assert_eq!(settings.endpoints.compute, compute);
            let cloud = Cloud { client: Client::new(&settings).unwrap(), settings, project: "p".to_owned() };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let died = runtime.block_on(async {
                let holder = async move {
                    let _held = Held::new(&Arc::new(cloud), "z", "i-1".to_owned(), DELETE);
                    assert_eq!(still_held().len(), 1);
                    panic!("as it may happen");
                };
                tokio::spawn(holder).await
            });
            assert!(died.unwrap_err().is_panic());
            assert!(still_held().is_empty());
            return;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = format!("http://{}/", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || listener.incoming().flatten().for_each(|stream| seen.lock().unwrap().extend(answer(stream).ok()))
        });
        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials.json");
        let text = serde_json::json!({
            "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r", "token_uri": format!("{at}token"),
        });
        std::fs::write(&credentials, text.to_string()).unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name])
            .env(CLOUD, &at)
            .env("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", &at)
            .env("GOOGLE_APPLICATION_CREDENTIALS", &credentials)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let seen = seen.lock().unwrap().clone();
        let deletes: Vec<_> = seen.iter().filter(|line| line.starts_with("DELETE ")).collect();
        assert_eq!(deletes.len(), 1, "{seen:?}");
        assert!(deletes[0].starts_with("DELETE /projects/p/zones/z/instances/i-1?requestId="), "{seen:?}");
    }
}
