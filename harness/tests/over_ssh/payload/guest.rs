//! The "guest": a real SSH server on loopback, in a folder of its own.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use matrix::{Arch, Digest, UploadFile};
use nestmatrix::{
    payload::{self, Collection, Limits, Suite, SuiteRun, Upload, UploadError},
    ssh::{Session, SshError},
};

use crate::sshd::{Server, Tools, within};

/// A server, a session on it, and a folder for what comes back.
pub(crate) struct Guest {
    pub(crate) server: Server,
    pub(crate) session: Session,
}

impl Guest {
    pub(crate) async fn start() -> Self {
        let busybox = module_path!().contains("busybox");
        Self::start_with(if busybox { Tools::Busybox } else { Tools::Own }).await
    }

    pub(crate) async fn start_with(tools: Tools) -> Self {
        let server = Server::start_with(tools).await;
        let session = server.session().await;
        Self { server, session }
    }

    pub(crate) fn here(&self, name: &str) -> PathBuf {
        self.server.dir.path().join(name)
    }

    pub(crate) async fn upload(
        &self,
        script: &str,
        env: &[(&str, &str)],
        files: &[UploadFile],
    ) -> Result<(), UploadError> {
        let env: IndexMap<String, String> = env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let (family, arch) = (None, Arch::X86_64);
        let upload = Upload { script, env: &env, files, artifacts: &[], family, arch, network: None, facts: false };
        payload::upload(&self.session, &upload, within(30)).await.map(drop)
    }

    pub(crate) async fn run_for(&self, limit: Duration) -> Result<SuiteRun, SshError> {
        let (stdout, stderr) = (self.here("stdout.log"), self.here("stderr.log"));
        let deadline = Instant::now() + limit;
        let grace = Duration::from_secs(2);
        let suite = Suite::new((&stdout, &stderr), deadline, grace);
        payload::run(&self.session, &suite).await
    }

    /// Uploads a script and runs it.
    pub(crate) async fn suite(&self, script: &str) -> SuiteRun {
        self.upload(script, &[], &[]).await.unwrap();
        self.run_for(Duration::from_secs(30)).await.unwrap()
    }

    pub(crate) fn stdout_log(&self) -> String {
        fs::read_to_string(self.here("stdout.log")).unwrap()
    }

    /// Waits until the suite that runs has printed this.
    pub(crate) async fn until_said(&self, words: &str) {
        while !fs::read_to_string(self.here("stdout.log")).is_ok_and(|log| log.contains(words)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn stderr_log(&self) -> String {
        fs::read_to_string(self.here("stderr.log")).unwrap()
    }

    pub(crate) async fn collect(&self, globs: &[String]) -> Collection {
        let limits = Limits { per_file: 1 << 20, total: 4 << 20, count: 100 };
        payload::collect(&self.session, globs, &self.here("into"), &limits, within(30)).await.unwrap()
    }
}

/// A file as a plan names it.
pub(crate) fn upload_file(path: &PathBuf, relative: &str) -> UploadFile {
    let content = fs::read(path).unwrap();
    let digest = Digest::of(&content);
    UploadFile { path: path.clone(), relative: relative.to_owned(), bytes: content.len() as u64, digest }
}
