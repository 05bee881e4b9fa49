//! A template: found in the store, or made now and put there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use images::{Begun, Unfinished};
use reports::Trouble;

use super::{
    Note, RAM, STATE, Template,
    freeze::{self, Files, Made, NotFrozen},
    spec::{TemplateBuilder, TemplateProgress, TemplateSpec, Work, because, interrupted, no_template},
};
use crate::{
    guest::{self, GuestIdentity, Launch},
    ssh::{self, Keys},
};

/// What a fork may take above what the first one took: that one did nothing.
const MARGIN: u64 = 32 << 20;

/// The template: from the store, where it was found unharmed, or made now. The flag: it was there.
///
/// `tell` receives the progress.
pub async fn obtain(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<(Template, bool), Trouble> {
    let (key, templates) = (wanted.key, builder.templates.clone());
    let found = tokio::select! {
        biased;
        // Gigabytes may have to be read.
        () = builder.cancel.cancelled() => return Err(interrupted()),
        found = blocking(move || templates.find::<Note>(key)) => found?,
    };
    match found.and_then(|found| found.map(|kept| Template::new(key, kept, builder.templates)).transpose()) {
        Ok(Some(template)) => return Ok((template, true)),
        Ok(None) => {}
        Err(reason) => tell(TemplateProgress::Damaged(reason)),
    }
    if let (Err(reason), false) = (wanted.can_be_frozen(), wanted.prepares()) {
        return Err(no_template(reason));
    }
    // The process that makes it now may fail at its time limit, and then another one that waits may go first.
    let until = Instant::now() + longest(builder, wanted) * 2;
    let memory = wanted.launch.spec.memory.bytes();
    let room = wanted.room.bytes();
    let (begun, whole) = match wanted.can_be_frozen() {
        Err(reason) => (begin(builder, wanted, room, until, tell).await?, Err(reason)),
        Ok(()) => match begin(builder, wanted, memory + room, until, tell).await {
            Err(none) if wanted.prepares() => (begin(builder, wanted, room, until, tell).await?, Err(none.reason)),
            begun => (begun?, Ok(())),
        },
    };
    let unfinished = match begun {
        Begun::Found(kept) => {
            return Template::new(key, kept, builder.templates).map(|template| (template, true)).map_err(no_template);
        }
        Begun::Cancelled => return Err(interrupted()),
        Begun::Free(unfinished) => unfinished,
    };
    let template = tokio::select! {
        biased;
        () = builder.cancel.cancelled() => return Err(interrupted()),
        template = make(builder, wanted, unfinished, whole, tell) => template?,
    };
    Ok((template, false))
}

/// How long making it takes at the most: the sum of all of its time limits.
fn longest(builder: &TemplateBuilder<'_>, wanted: &TemplateSpec<'_>) -> Duration {
    let work = match &wanted.work {
        Work::Preparation(preparation) => preparation.as_ref().map_or(Duration::ZERO, |preparation| preparation.limit),
        Work::Own(_, limit) => *limit,
    };
    // A first boot is waited for as long again.
    wanted.boot * 2 + work + freeze::LONGEST.mul_f64(builder.speed)
}

/// Waits until it is ours to make, or there.
async fn begin(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    room: u64,
    until: Instant,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<Begun<Note>, Trouble> {
    let (templates, given_up, key) = (builder.templates.clone(), Arc::new(AtomicBool::new(false)), wanted.key);
    let flag = Arc::clone(&given_up);
    let (waits, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let begin = blocking(move || {
        templates.begin::<Note>(key, room, &flag, &move |holder| {
            let _ = waits.send(holder);
        })
    });
    let _give_up = GiveUp(given_up);
    let mut begin = std::pin::pin!(begin);
    let mut holder = "another process".to_owned();
    loop {
        tokio::select! {
            biased;
            () = builder.cancel.cancelled() => return Ok(Begun::Cancelled),
            begun = &mut begin => return begun?.map_err(because("it cannot be kept")),
            Some(process) = waiting.recv() => {
                holder = process.map_or(holder, |process| format!("process {process}"));
                tell(TemplateProgress::Waiting(format!("waiting for {holder}, which makes it")));
            }
            () = tokio::time::sleep_until(until.into()) => {
                let late = no_template(format!("timeout: {holder} did not finish making it in time"));
                return Err(late.with_help("check whether it is stopped or stuck; once it has ended, the next run makes the template"));
            }
        }
    }
}

/// Tells the thread that waits for a lock that its result is no longer wanted.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(because("a defect of nestmatrix"))
}

async fn make(
    builder: &TemplateBuilder<'_>,
    wanted: &TemplateSpec<'_>,
    unfinished: Unfinished,
    whole: Result<(), String>,
    tell: &(dyn Fn(TemplateProgress) + Sync),
) -> Result<Template, Trouble> {
    let folder = unfinished.folder();
    let (login, host_keys) = (keys("login")?, keys("host key")?);
    login.write_private(&folder, ssh::LOGIN_FILES).map_err(because("its keys cannot be written"))?;
    let who = GuestIdentity {
        login: login.public(),
        host_private: host_keys.private(),
        host_public: host_keys.public(),
        hostname: &wanted.hostname,
    };
    guest::identity(&folder, &who, wanted.launch.spec.seed).map_err(because("its identity cannot be written"))?;
    let write = || wanted.written.iter().try_for_each(|(serial, write)| write(&guest::raw_disk(&folder, serial).file));
    crate::blocking::blocking(write)?;
    let files = Files { folder: folder.clone(), login, host_keys };
    let (cost, system, unfrozen) = match freeze::freeze(builder, wanted, &files, whole, tell).await {
        Ok(Made { taken, system }) => (taken + MARGIN, system, None),
        Err(NotFrozen { none, prepared: true }) => {
            for name in [RAM, STATE] {
                let _ = std::fs::remove_file(folder.join(name));
            }
            (0, None, Some(none.reason))
        }
        Err(NotFrozen { none, .. }) => return Err(none),
    };
    // What it kept besides its disks is nobody else's.
    let _ = std::fs::remove_dir_all(folder.join(Launch::NVRAM));
    let note = Note { cost, unfrozen, system };
    let (templates, key) = (builder.templates.clone(), wanted.key);
    let kept = blocking(move || templates.publish(unfinished, note)).await?.map_err(because("it cannot be kept"))?;
    let (kept, gone) = kept;
    let (taken, limit) = (builder.templates.bytes(), builder.templates.limit().bytes());
    if gone > 0 {
        tell(TemplateProgress::Room(format!(
            "{gone} other templates, not used for the longest time, were removed to make room for it"
        )));
    }
    if taken > limit {
        let (taken, limit) = (taken >> 20, limit >> 20);
        tell(TemplateProgress::Room(format!(
            "templates take {taken} MiB, more than the {limit} MiB of --template-limit: all are in use"
        )));
    }
    Template::new(key, kept, builder.templates).map_err(no_template)
}

fn keys(what: &str) -> Result<Keys, Trouble> {
    Keys::generate(&format!("nestmatrix template {what}")).map_err(because("no keys could be made"))
}
