//! What an attempt needs of the world: a guest that is made somehow, and what is done in it over a session. The real one is QEMU and SSH, tests
//! have a fake.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use matrix::{ByteSize, HostPattern, Network, PackageFamily, Repository};
use reports::{GuestFacts, SystemFacts, Trouble};
use tokio_util::sync::CancellationToken;

use crate::{
    guest::{Ended, Guest, Seed},
    payload::{
        self, AfterBoot, CollectError, Collection, FirstBootError, Install, InstallError, Installed, Limits,
        ResultFiles, Suite, SuiteRun, Survey, Upload, UploadError,
    },
    ssh::{self, BannerStream, Exec, Exit, Keys, Open, Session, SshError},
    template::Template,
};

use super::outbound::Outbound;

pub(super) type Outcome<T> = Result<T, Trouble>;

/// A guest that runs.
pub(super) struct RunningGuest<W: World> {
    pub(super) guest: W::Guest,
    /// What opens it.
    pub(super) login: Keys,
    pub(super) host_keys: Keys,
    /// Of a fork that was not opened yet: the connection its SSH server waits at.
    pub(super) connection: Option<<W::Guest as Machine>::Connection>,
    /// What it is a fork of.
    pub(super) fork_of: Option<Arc<W::Template>>,
    /// It is reached over the port of a fork, not over its network.
    pub(super) by_port: bool,
    /// Its disk is that of a template, with the identity that was frozen there.
    pub(super) of_template: bool,
    /// The identity it was given after its boot.
    pub(super) own: Option<Own>,
    /// Its way to repositories, if it has one.
    pub(super) outbound: Option<Outbound>,
}

/// An identity of a guest's own, in place of that of its template.
pub(super) struct Own {
    pub(super) machine_id: String,
    /// What its firmware goes on telling it at each boot.
    pub(super) told: Keys,
}

/// What a guest is made from.
pub(super) enum Source<T> {
    /// It is forked.
    Fork(Arc<T>),
    /// It is booted, from this disk ...
    Boot {
        prepared: Option<Arc<T>>,
        /// ... although it was to be forked, and why.
        reason: Option<String>,
    },
}

/// Where the guest of one attempt comes from.
pub(super) trait World: Sized + Send + Sync {
    type Guest: Machine;
    type Template: Origin;

    fn source(&self) -> Outcome<Source<Self::Template>>;

    /// A guest forked from this, awake, and what it is.
    fn fork(
        &self,
        template: &Arc<Self::Template>,
        logs: &Path,
        scratch: &Path,
    ) -> impl Future<Output = Outcome<(RunningGuest<Self>, GuestFacts)>> + Send;

    /// A guest that boots, and what it is.
    fn boot(
        &self,
        prepared: Option<&Self::Template>,
        reason: Option<String>,
        logs: &Path,
        scratch: &Path,
    ) -> impl Future<Output = Outcome<(RunningGuest<Self>, GuestFacts)>> + Send;

    /// No fork of it works: none is made of it any more.
    fn give_up(&self, template: &Self::Template, trouble: &Trouble);

    /// The free space below the folder of guests' disks, if that is too little for what they write.
    fn shortage(&self) -> Option<ByteSize>;
}

/// What guests are forked from.
pub(super) trait Origin: Send + Sync {
    fn system(&self) -> Option<&SystemFacts>;
    fn worked(&self);
    /// True: so many forks failed that the template must be to blame.
    fn failed(&self) -> bool;
}

/// How a session is opened.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) login: &'a Keys,
    /// What the guest is to show, and nothing else.
    pub(super) host_keys: &'a Keys,
    pub(super) deadline: Instant,
    pub(super) silence: Duration,
    pub(super) cancel: CancellationToken,
}

/// A guest's machine.
pub(super) trait Machine: Send + Sync {
    type Connection: Send;
    type Session: Talk;

    fn pid(&self) -> u32;
    /// How often it may reboot itself before its boot is over.
    fn reboots(&self) -> u32;
    /// How it receives its identity.
    fn seed(&self) -> Option<Seed>;
    /// Where its SSH port is reached.
    fn address(&self) -> Option<SocketAddr>;
    /// The last lines of its console.
    fn tail(&self, lines: usize) -> Vec<String>;
    fn has_ended(&self) -> Option<Ended>;
    fn ended(&self) -> impl Future<Output = Ended> + Send;
    /// Whether its QEMU does.
    fn answers(&self) -> impl Future<Output = bool> + Send;
    /// Waits for its SSH server on the network.
    fn served(
        &self,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Self::Connection, String>> + Send;
    fn open(
        &self,
        connection: Self::Connection,
        login: Login<'_>,
    ) -> impl Future<Output = Result<Self::Session, SshError>> + Send;
    /// It has reset itself, and boots again.
    fn boot_again(&self) -> impl Future<Output = Result<(), String>> + Send;
    fn picture(&self, file: &Path) -> impl Future<Output = ()> + Send;
    fn kill(self) -> impl Future<Output = ()> + Send;
    fn release(self) -> impl Future<Output = ()> + Send;
}

/// What is done in a guest.
pub(super) trait Talk: Send + Sync {
    type Survey: Send + Sync + Clone;

    fn exec(&self, exec: Exec) -> impl Future<Output = Result<Exit, SshError>> + Send;
    fn first_boot(&self, deadline: Instant) -> impl Future<Output = Result<(), FirstBootError>> + Send;
    fn boot_over(&self, speed: f64) -> impl Future<Output = Result<AfterBoot, SshError>> + Send;
    fn reboot(&self, deadline: Instant) -> impl Future<Output = Result<Option<String>, SshError>> + Send;
    fn announced(&self, deadline: Instant) -> impl Future<Output = Result<bool, SshError>> + Send;
    fn family(&self, deadline: Instant) -> impl Future<Output = Result<Option<PackageFamily>, SshError>> + Send;
    fn upload(
        &self,
        upload: &Upload<'_>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<SystemFacts>, UploadError>> + Send;
    fn survives(&self, network: Network, deadline: Instant) -> impl Future<Output = Result<bool, SshError>> + Send;
    fn survey(
        &self,
        family: PackageFamily,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Survey, InstallError>> + Send;
    fn add_repository(
        &self,
        family: PackageFamily,
        added: &Repository,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), InstallError>> + Send;
    fn repositories(
        &self,
        are_pinned: bool,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<HostPattern>, SshError>> + Send;
    fn serve_artifacts(
        &self,
        install: &Install<'_>,
        survey: &Self::Survey,
    ) -> impl Future<Output = Result<(), InstallError>> + Send;
    fn get_dependencies(&self, install: &Install<'_>) -> impl Future<Output = Result<(), InstallError>> + Send;
    fn install(
        &self,
        install: &Install<'_>,
        survey: Self::Survey,
    ) -> impl Future<Output = Result<Installed, InstallError>> + Send;
    fn run(&self, suite: &Suite<'_>) -> impl Future<Output = Result<SuiteRun, SshError>> + Send;
    fn remove_results(
        &self,
        glob: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Result<Vec<String>, String>, CollectError>> + Send;
    fn results(&self, glob: &str, deadline: Instant) -> impl Future<Output = Result<ResultFiles, CollectError>> + Send;
    fn artifacts(
        &self,
        globs: &[String],
        into: &Path,
        deadline: Instant,
    ) -> impl Future<Output = Result<Collection, CollectError>> + Send;
}

/// A session of an attempt's guest.
pub(super) type Talker<W> = <<W as World>::Guest as Machine>::Session;

impl Origin for Template {
    fn system(&self) -> Option<&SystemFacts> {
        Self::system(self)
    }

    fn worked(&self) {
        Self::worked(self);
    }

    fn failed(&self) -> bool {
        Self::failed(self)
    }
}

impl Machine for Guest {
    type Connection = BannerStream;
    type Session = Session;

    fn pid(&self) -> u32 {
        Self::pid(self)
    }

    fn reboots(&self) -> u32 {
        self.spec().reboots
    }

    fn seed(&self) -> Option<Seed> {
        self.spec().seed
    }

    fn address(&self) -> Option<SocketAddr> {
        self.ssh()
    }

    fn tail(&self, lines: usize) -> Vec<String> {
        self.console().tail(lines)
    }

    fn has_ended(&self) -> Option<Ended> {
        Self::has_ended(self)
    }

    async fn ended(&self) -> Ended {
        Self::ended(self).await
    }

    async fn answers(&self) -> bool {
        Self::answers(self).await
    }

    async fn served(&self, deadline: Instant, cancel: &CancellationToken) -> Result<BannerStream, String> {
        let address = self.ssh().ok_or("the guest has no network")?;
        ssh::banner(address, deadline, cancel).await.map_err(|error| error.to_string())
    }

    async fn open(&self, stream: BannerStream, how: Login<'_>) -> Result<Session, SshError> {
        let Login { user, login, host_keys, deadline, silence, cancel } = how;
        let (sudo, host_keys) = (user != "root", host_keys.public());
        Session::open(Open { stream, user, sudo, login, host_keys, deadline, silence, cancel }).await
    }

    async fn boot_again(&self) -> Result<(), String> {
        Self::boot_again(self).await.map_err(|error| error.to_string())
    }

    async fn picture(&self, file: &Path) {
        // No picture is no loss to the verdict, which stands.
        let _ = self.screendump(file).await;
    }

    async fn kill(self) {
        Self::kill(self).await;
    }

    async fn release(self) {
        Self::release(self).await;
    }
}

impl Talk for Session {
    type Survey = Survey;

    async fn exec(&self, exec: Exec) -> Result<Exit, SshError> {
        Self::exec(self, exec).await
    }

    async fn first_boot(&self, deadline: Instant) -> Result<(), FirstBootError> {
        payload::first_boot(self, deadline).await
    }

    async fn boot_over(&self, speed: f64) -> Result<AfterBoot, SshError> {
        payload::boot_over(self, speed).await
    }

    async fn reboot(&self, deadline: Instant) -> Result<Option<String>, SshError> {
        payload::reboot(self, deadline).await
    }

    async fn announced(&self, deadline: Instant) -> Result<bool, SshError> {
        payload::announced(self, deadline).await
    }

    async fn family(&self, deadline: Instant) -> Result<Option<PackageFamily>, SshError> {
        payload::detect_family(self, deadline).await
    }

    async fn upload(&self, upload: &Upload<'_>, deadline: Instant) -> Result<Option<SystemFacts>, UploadError> {
        payload::upload(self, upload, deadline).await
    }

    async fn survives(&self, network: Network, deadline: Instant) -> Result<bool, SshError> {
        payload::survives(self, network, deadline).await
    }

    async fn survey(&self, family: PackageFamily, deadline: Instant) -> Result<Survey, InstallError> {
        payload::survey(self, family, deadline).await
    }

    async fn add_repository(
        &self,
        family: PackageFamily,
        added: &Repository,
        deadline: Instant,
    ) -> Result<(), InstallError> {
        payload::add_repository(self, family, added, deadline).await
    }

    async fn repositories(&self, are_pinned: bool, deadline: Instant) -> Result<Vec<HostPattern>, SshError> {
        payload::repositories(self, are_pinned, deadline).await
    }

    async fn serve_artifacts(&self, install: &Install<'_>, survey: &Survey) -> Result<(), InstallError> {
        payload::serve_artifacts(self, install, survey).await
    }

    async fn get_dependencies(&self, install: &Install<'_>) -> Result<(), InstallError> {
        payload::get_dependencies(self, install).await
    }

    async fn install(&self, install: &Install<'_>, survey: Survey) -> Result<Installed, InstallError> {
        payload::install(self, install, survey).await
    }

    async fn run(&self, suite: &Suite<'_>) -> Result<SuiteRun, SshError> {
        payload::run(self, suite).await
    }

    async fn remove_results(&self, glob: &str, deadline: Instant) -> Result<Result<Vec<String>, String>, CollectError> {
        payload::remove_results(self, glob, deadline).await
    }

    async fn results(&self, glob: &str, deadline: Instant) -> Result<ResultFiles, CollectError> {
        payload::collect_results(self, glob, deadline).await
    }

    async fn artifacts(&self, globs: &[String], into: &Path, deadline: Instant) -> Result<Collection, CollectError> {
        payload::collect(self, globs, into, &Limits::default(), deadline).await
    }
}
