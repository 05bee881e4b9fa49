//! The steps prepare and install: the payload's way into a guest, and what is heard of the guest on that way.

use std::path::Path;

use matrix::{Arch, Dependencies, ImageSource, InstallFrom, Network, PackageFamily};
use reports::{EventKind, Phase, SystemFacts, Trouble, TroubleKind};

use super::{
    answers::OfSession,
    attempt::{Attempt, GRACE, deadline},
    disk,
    outbound::{self, Outbound},
    world::{Origin as _, Outcome, RunningGuest, Talk, Talker, World},
};
use crate::{
    payload::{self, Install, InstallError, Installed, Upload, UploadError},
    ssh::SshError,
};

/// What is to be known of a guest before the package is installed there.
pub(super) type Package<W> = (PackageFamily, <Talker<W> as Talk>::Survey);

/// The guest is not ready for the package or the suite.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Survey(#[from] InstallError),
}

impl OfSession for NotSent {
    fn session(&self) -> Option<&SshError> {
        match self {
            Self::Upload(error) => error.session(),
            Self::Survey(error) => error.session(),
        }
    }
}

impl<W: World> Attempt<'_, W> {
    /// The step prepare: sends the suite and the package into the guest.
    pub(super) async fn prepare(&self, running: &RunningGuest<W>, session: &Talker<W>) -> Outcome<Option<Package<W>>> {
        // A fork is what its template was.
        let known = running.fork_of.as_ref().and_then(|template| template.system()).cloned();
        let ask = known.is_none();
        if let Some(facts) = known {
            self.seen(facts);
        }
        let guest = &running.guest;
        let limit = self.scaled(self.cell.timeouts.prepare);
        let sending = async {
            let package = self.send_payload(session, ask).await?;
            if let Some(outbound) = &running.outbound {
                let until = deadline(limit);
                if self.cell.guest.network == Network::Repositories {
                    // Nothing of the package has run yet: it is the image that says where its repositories are.
                    outbound.learn(session.repositories(outbound.is_locked(), until).await.map_err(UploadError::from)?);
                    outbound.allow(&self.context.plan);
                }
                self.add_repositories(session, package.as_ref().map(|(family, _)| *family), until).await?;
            }
            Ok::<_, NotSent>(package)
        };
        let sent = self.phase(Phase::Prepare, Some(guest), Some(limit), sending).await?;
        self.explained(guest, Phase::Prepare, sent).await
    }

    /// Adds those that the matrix has for the cell's image, unless the guest was prepared with them.
    async fn add_repositories(
        &self,
        session: &Talker<W>,
        family: Option<PackageFamily>,
        until: std::time::Instant,
    ) -> Result<(), NotSent> {
        let plan = &self.context.plan;
        let added = match outbound::is_prepared_with_repositories(plan, &self.cell.image) {
            true => Vec::new(),
            false => outbound::added(plan, &self.cell.image),
        };
        if added.is_empty() {
            return Ok(());
        }
        let family = match family {
            None => session.family(until).await.map_err(UploadError::from)?,
            known => known,
        };
        let Some(family) = family else { return Ok(()) };
        for repository in added {
            session.add_repository(family, repository, until).await?;
        }
        Ok(())
    }

    /// After a reboot: what was sent is there, or is sent again.
    pub(super) async fn restore_payload(&self, session: &Talker<W>) -> Result<(), NotSent> {
        let until = deadline(self.scaled(self.cell.timeouts.prepare));
        if !session.survives(self.cell.guest.network, until).await.map_err(UploadError::from)? {
            self.send_payload(session, false).await?;
        }
        Ok(())
    }

    fn seen(&self, facts: SystemFacts) {
        // A guest cannot tell whose kernel it runs; what it was made of can.
        let source = self.context.plan.image(self.cell).map(|image| &image.source);
        let kernel_lent = matches!(source, Some(ImageSource::Rootfs { .. }));
        let facts = SystemFacts { kernel_lent, ..facts };
        let (image, asked) = (&self.cell.image, self.cell.guest.disk);
        let small = facts.root_bytes.and_then(|bytes| disk::small_root(image, bytes, asked));
        let large = self.context.image(self.cell).and_then(|from| disk::larger(image, from.facts.bytes, asked));
        small.into_iter().chain(large).for_each(|words| self.context.events.warn_once(words));
        self.send(|cell, attempt| EventKind::SystemSeen { cell, attempt, facts });
    }

    /// Sends everything, and tells what the guest says it is, if it is asked. Its family and what is installed there, if that is needed
    /// and the family known.
    async fn send_payload(&self, session: &Talker<W>, ask: bool) -> Result<Option<Package<W>>, NotSent> {
        let (plan, cell) = (&self.context.plan, self.cell);
        let until = deadline(self.scaled(cell.timeouts.prepare));
        let family = match self.context.image(cell).and_then(|image| image.facts.family) {
            _ if !cell.installs() => None,
            None => session.family(until).await.map_err(UploadError::from)?,
            known => known,
        };
        let mut env = cell.env.clone();
        if cell.guest.network == Network::Repositories {
            for (name, value) in payload::proxy_environment() {
                env.entry(name.to_owned()).or_insert(value);
            }
        }
        let upload = Upload {
            script: plan.scripts.get(&cell.script).map_or("", String::as_str),
            env: &env,
            files: &cell.files,
            artifacts: plan.package.as_ref().map_or(&[], |package| package.artifacts.as_slice()),
            family,
            arch: self.arch(),
            network: Some(cell.guest.network),
            facts: ask,
        };
        match session.upload(&upload, until).await? {
            Some(facts) => self.seen(facts),
            None if ask => self.warn("the guest did not say what system it is".to_owned()),
            None => {}
        }
        Ok(match family {
            Some(family) => Some((family, session.survey(family, until).await?)),
            None => None,
        })
    }

    /// The kind of CPU the guest has.
    fn arch(&self) -> Arch {
        self.context.image(self.cell).map_or(Arch::here(), |image| image.facts.arch)
    }

    /// The step install; `package` is what step prepare has found out.
    pub(super) async fn install(
        &self,
        running: &RunningGuest<W>,
        session: &Talker<W>,
        package: Option<Package<W>>,
        logs: &Path,
    ) -> Outcome<()> {
        let Some((family, survey)) = package else {
            let reason = format!("the package cannot be installed: {}", payload::UNKNOWN_FAMILY);
            let help = "a suite with `install = false` runs without the package";
            return Err(Trouble::new(TroubleKind::InstallUnknown, Phase::Install, reason).with_help(help));
        };
        let limit = self.scaled(self.cell.timeouts.install);
        let log = logs.join("install.log");
        let (deadline, grace) = (deadline(limit), self.scaled(GRACE));
        let package = self.context.plan.package.as_ref();
        let names = package.iter().flat_map(|package| &package.artifacts).map(|artifact| &*artifact.file_name);
        for left_out in payload::left_out(family, self.arch(), names) {
            self.warn(left_out);
        }
        let install = Install { family, arch: self.arch(), log: &log, deadline, grace };
        let installing = self.installing(session, &install, survey, running.outbound.as_ref());
        let installed = match self.supervised(running, Phase::Install, limit, installing).await? {
            Ok(installed) => installed,
            Err(InstallError::Ssh(error)) => {
                return self.explained(&running.guest, Phase::Install, Err(error)).await;
            }
            Err(error) => {
                let trouble = self.not_installed(&error, &log);
                let failures = running.outbound.as_ref().map(Outbound::failures).unwrap_or_default();
                let differs = running.outbound.as_ref().is_some_and(Outbound::differs);
                return Err(match trouble.kind {
                    // Some package managers fetch while they install, and their words are those of a package that does not install.
                    _ if differs => {
                        let reason = format!("the repositories offer other packages than are pinned: {failures}");
                        let help = "if that is expected, `--lock` pins what they have now; what the package manager said is in the cell's logs";
                        Trouble::new(TroubleKind::RepositoryFailed, Phase::Install, reason).with_help(help)
                    }
                    TroubleKind::RepositoryFailed if !failures.is_empty() => {
                        Trouble { reason: format!("{} ({failures})", trouble.reason), ..trouble }
                    }
                    _ => trouble,
                });
            }
        };
        for warning in installed.warnings {
            self.warn(warning);
        }
        if let Some(doubt) = package.and_then(|package| payload::another_version(package, &installed.packages)) {
            self.warn(doubt);
        }
        let packages = [installed.packages, installed.others].concat();
        self.send(|cell, attempt| EventKind::PackagesInstalled { cell, attempt, packages });
        Ok(())
    }

    /// Installs from the artifacts alone. If something is missing, and nothing has run yet, it is got from the repositories of the guest's
    /// system first, where the cell has them.
    async fn installing(
        &self,
        session: &Talker<W>,
        install: &Install<'_>,
        survey: <Talker<W> as Talk>::Survey,
        outbound: Option<&Outbound>,
    ) -> Result<Installed, InstallError> {
        if self.cell.install_from == InstallFrom::Repository {
            let log = install.log.with_file_name("repository.log");
            session.serve_artifacts(&Install { log: &log, ..*install }, &survey).await?;
        }
        let first = session.install(install, survey.clone()).await;
        let Some(outbound) = outbound.filter(|_| self.cell.dependencies == Dependencies::Repositories) else {
            return first;
        };
        if !first.as_ref().is_err_and(InstallError::lacks_packages) {
            return first;
        }
        if self.cell.guest.network != Network::Repositories {
            // Nor has it here: that is what is missing.
            outbound.learn(session.repositories(outbound.is_locked(), install.deadline).await?);
        }
        outbound.get_dependencies(&self.context.plan);
        let log = install.log.with_file_name("dependencies.log");
        let got = session.get_dependencies(&Install { log: &log, ..*install }).await;
        // With the pinned lists it might have worked.
        got.map_err(|error| outbound.other_lists().into_iter().fold(error, InstallError::with_other_lists))?;
        // Packages' scripts reach no more than suites do.
        outbound.enter(Phase::Install, &self.context.plan, self.cell);
        session.install(install, survey).await.map_err(InstallError::after_dependencies)
    }

    /// Whose fault it is that the package is not installed.
    fn not_installed(&self, error: &InstallError, log: &Path) -> Trouble {
        let output = format!("the package manager's whole output is in {}", log.display());
        let (kind, what) = match error {
            InstallError::Nothing { .. } => {
                let help = "add one to `package.artifacts`, or leave the image out; a suite with `install = false` runs without";
                return Trouble::new(TroubleKind::NotInstalled, Phase::Install, error.to_string()).with_help(help);
            }
            InstallError::OtherContent { .. } => (
                TroubleKind::InstallUnknown,
                "raise the package's version, or remove the other package in the image's `prepare`; ",
            ),
            InstallError::Unknown { .. } => (TroubleKind::InstallUnknown, ""),
            InstallError::Repositories { .. } => {
                let output = format!(
                    "the package manager's whole output is in {}",
                    log.with_file_name("dependencies.log").display()
                );
                return Trouble::new(TroubleKind::RepositoryFailed, Phase::Install, error.to_string())
                    .with_help(output);
            }
            InstallError::NotServed { .. } => {
                let log = log.with_file_name("repository.log");
                let help = format!("see {}; `install = \"file\"` installs without", log.display());
                return Trouble::new(TroubleKind::RepositoryFailed, Phase::Install, error.to_string()).with_help(help);
            }
            InstallError::Locked { .. } => {
                (TroubleKind::PackageManagerLocked, "have the image's `prepare` end or disable that program; ")
            }
            error if error.is_of_dependencies() => (
                TroubleKind::NotInstalled,
                match self.cell.dependencies {
                    Dependencies::Artifacts => {
                        "`dependencies` is \"artifacts\": add what is missing to `package.artifacts` or to the image's \
                         `prepare.packages`, or allow `dependencies = \"repositories\"`; "
                    }
                    Dependencies::Repositories => {
                        "neither the artifacts nor the repositories of the guest's system have what is missing; `[[repository]]` adds others; "
                    }
                },
            ),
            _ => (TroubleKind::NotInstalled, ""),
        };
        Trouble::new(kind, Phase::Install, error.to_string()).with_help(format!("{what}{output}"))
    }
}
