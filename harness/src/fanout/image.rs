//! An image as guests are started from it on this machine: the one way from an image to a virtual machine.

use std::{path::PathBuf, sync::Arc};

use images::{Entry, Kernel, Origin, PreparedImage, Published, Source, Start};
use matrix::{Arch, ByteSize, Checksum, Digest, Firmware, PackageFamily};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{
    guest::{Accelerator, BootFiles, Cpu, Disk, DiskFile, Launch, MachineSpec, Seed, Uefi},
    host::{self, NoPart, Qemu},
};

/// Most addresses of a file that are passed on.
const MOST_URLS: usize = 32;

/// How often an image may reboot itself at its first boot (to relabel its files, to switch kernels).
const MOST_REBOOTS: u32 = 3;

/// What is true of an image on every machine that it is taken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// Identity of its content.
    pub digest: Digest,
    /// The kind of CPU it is made for.
    pub arch: Arch,
    /// What kind of packages it installs; `None`: that is seen in the guest.
    pub family: Option<PackageFamily>,
    /// Size of its disk as a guest sees it: an overlay must not be smaller.
    pub bytes: ByteSize,
    /// What starts its guests.
    pub start: Start,
    /// Who logs in over SSH; anybody but root works through `sudo`.
    pub login_user: String,
}

/// Where another machine can fetch the disk that an image was made of, and what decides, beside [`ImageFacts`], what is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchSource {
    /// The same file at each, tried in this order; `http` or `https`, without a password.
    urls: Vec<String>,
    /// Its stated digest.
    checksum: Checksum,
    /// What starts its boot loader; `None`: read from the disk.
    firmware: Option<Firmware>,
}

impl FetchSource {
    /// That of an entry; `None`: it is built, a file of this machine, or at addresses that are not everybody's.
    pub fn of(entry: &Entry) -> Option<Self> {
        let Source::Disk { file: Published { origin: Origin::Urls(urls), digest: Some(checksum) }, firmware } =
            &entry.source
        else {
            return None;
        };
        let source = Self { urls: urls.clone(), checksum: *checksum, firmware: *firmware };
        source.is_for_others().then_some(source)
    }

    /// All addresses are of the web, and none has a user's name or password.
    fn is_for_others(&self) -> bool {
        let is_for_others = |text: &String| {
            Url::parse(text).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
            })
        };
        (1..=MOST_URLS).contains(&self.urls.len()) && self.urls.iter().all(is_for_others)
    }

    /// The entry of which the same image is made under another name; `None`: something in this does not lead to a publisher.
    pub(crate) fn entry(self, name: &str, facts: &ImageFacts) -> Option<Entry> {
        if !self.is_for_others() {
            return None;
        }
        let file = Published { origin: Origin::Urls(self.urls), digest: Some(self.checksum) };
        Some(Entry {
            name: name.to_owned(),
            title: String::new(),
            arch: facts.arch,
            family: facts.family,
            login_user: facts.login_user.clone(),
            end_of_life: None,
            source: Source::Disk { file, firmware: self.firmware },
            upstream: images::Upstream::default(),
        })
    }
}

/// An image as guests are started from it here.
#[derive(Clone, Debug)]
pub struct BootImage {
    /// What is true of it everywhere.
    pub facts: ImageFacts,
    /// The root disk, never written to.
    pub disk: DiskFile,
    /// The kernel its guests are started with, if they do not come with a boot loader.
    pub kernel: Option<Kernel>,
    /// Where other machines can fetch it; `None`: it is only here.
    pub source: Option<FetchSource>,
    /// Keeps the files where they are; `None`: nobody takes them away here.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(crate) lease: Option<Arc<PreparedImage>>,
}

impl BootImage {
    /// The image as it is in the store.
    pub fn of(image: Arc<PreparedImage>, source: Option<FetchSource>) -> Self {
        Self {
            facts: ImageFacts {
                digest: image.digest,
                arch: image.arch,
                family: image.family,
                bytes: ByteSize::from_bytes(image.bytes),
                start: image.start.clone(),
                login_user: image.login_user.clone(),
            },
            disk: DiskFile { file: image.disk.clone(), format: image.format },
            kernel: image.kernel.clone(),
            source,
            lease: Some(image),
        }
    }

    /// How its guests are given their identity.
    pub fn seed(&self) -> Seed {
        Seed::of(&self.facts.start)
    }

    /// The smallest machine that boots it; its disk is as large as `disk` if it is not larger itself. `words`: more for its kernel.
    pub fn machine<'a>(
        &self,
        qemu: &Qemu,
        accelerator: Accelerator,
        disk: ByteSize,
        words: impl IntoIterator<Item = &'a str>,
    ) -> MachineSpec {
        let seed = (self.seed() == Seed::CloudInit).then(|| Disk::read_only(Seed::DISK));
        MachineSpec {
            arch: self.facts.arch,
            machine: qemu.machine(),
            accelerator,
            cpu: Cpu::Fullest,
            cpus: 1,
            memory: ByteSize::from_mib(128),
            disks: [Disk::root(self.facts.bytes.max(disk))].into_iter().chain(seed).collect(),
            nics: 1,
            start: self.facts.start.clone().with_words(words),
            seed: Some(self.seed()),
            tpm: false,
            screen: false,
            // What a fork is woken over: a booted guest has it, too, so that both are the same machine.
            port: true,
            reboots: MOST_REBOOTS,
        }
    }

    /// A launch of such a machine here, that has neither disks nor an identity yet.
    ///
    /// # Errors
    ///
    /// It is to have a part that this machine has not.
    pub fn launch(&self, spec: MachineSpec, qemu: &Qemu) -> Result<Launch, NoPart> {
        let uefi = uefi(&spec)?;
        Ok(Launch {
            qemu: qemu.system.clone(),
            boot: BootFiles { kernel: self.kernel.clone().unwrap_or_default(), uefi },
            swtpm: if spec.tpm { host::swtpm()? } else { PathBuf::new() },
            ..Launch::new(spec)
        })
    }
}

/// The UEFI firmware of such a machine here; empty where it has none.
///
/// # Errors
///
/// None is installed.
pub(super) fn uefi(spec: &MachineSpec) -> Result<Uefi, NoPart> {
    match spec.start {
        Start::Firmware(Firmware::Uefi) => host::uefi(spec.arch, false),
        Start::Firmware(Firmware::UefiSecure) => host::uefi(spec.arch, true),
        Start::Firmware(Firmware::Bios) | Start::Kernel(_) => Ok(Uefi::default()),
    }
}
