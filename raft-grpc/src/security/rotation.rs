//! The files as they are now: read every second, used when they have changed and come to rest.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use raft_core::NodeId;
use tokio_util::sync::CancellationToken;

use crate::meters::certificate_expires;

use super::credentials::{Credentials, Validness, roughly};
use super::{TlsError, TlsFiles, name_of};

/// How often the files are read.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often is told that a certificate ends soon, or has ended.
const REMIND_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// No such file is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the files held. No `Debug`: a key is among it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) ca: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Files {
    pub(super) fn read(paths: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            ca: read(&paths.ca)?,
            certificate: read(&paths.certificate)?,
            key: read(&paths.key)?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |source| TlsError::Read { file: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(io::Error::other("it is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// The credentials of a node, which others take the place of.
#[derive(Debug)]
pub(crate) struct Rotation {
    node: NodeId,
    cluster: String,
    paths: TlsFiles,
    current: RwLock<Arc<Credentials>>,
}

impl Rotation {
    /// Uses the files as they are.
    pub(super) fn open(node: NodeId, cluster: String, paths: TlsFiles) -> Result<Self, TlsError> {
        let (name, files) = (name_of(&cluster, node), Files::read(&paths)?);
        let credentials = Credentials::load(&paths, files, &name, SystemTime::now())?;
        certificate_expires(credentials.validity.until);
        let current = RwLock::new(Arc::new(credentials));
        warn_about_access(node, &paths.key);
        Ok(Self { node, cluster, paths, current })
    }

    pub(crate) fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which name the certificate of another node of the cluster must have.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        name_of(&self.cluster, node)
    }

    /// Follows the files until `stop`.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let follow = async {
            let mut watch = Watch::default();
            let mut reminded = None::<Instant>;
            loop {
                if reminded.is_none_or(|reminded| reminded.elapsed() >= REMIND_INTERVAL) {
                    self.remind(SystemTime::now());
                    reminded = Some(Instant::now());
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
                let this = Arc::clone(&self);
                // On a thread for such things: a file system may hang.
                let looked = tokio::task::spawn_blocking(move || {
                    let replaced = watch.look(&this);
                    (watch, replaced)
                });
                let replaced;
                // The runtime is being shut down, or this is a bug: the node goes on with what it has.
                (watch, replaced) = match looked.await {
                    Ok(looked) => looked,
                    Err(why) => return tracing::error!(node = %self.node, "{why}"),
                };
                if replaced {
                    reminded = None;
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    fn replace(&self, files: Files) -> Result<(), TlsError> {
        let name = self.name_of(self.node);
        let new = Credentials::load(&self.paths, files, &name, SystemTime::now())?;
        certificate_expires(new.validity.until);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// Tells how long the certificate is valid, if that is not long.
    fn remind(&self, now: SystemTime) {
        let Self { node, .. } = self;
        let file = self.paths.certificate.display();
        match self.current().validity.at(now) {
            Validness::Valid => {}
            Validness::Ending(rest) => tracing::warn!(
                %node,
                "the certificate in {file} expires in {}: replace it, no restart is needed",
                roughly(rest)
            ),
            Validness::Expired(since) => tracing::error!(
                %node,
                "the certificate in {file} expired {} ago: other nodes refuse it on new connections; replace \
                 it, no restart is needed",
                roughly(since)
            ),
            Validness::NotYet(rest) => tracing::error!(
                %node,
                "the certificate in {file} is not valid for another {}: other nodes refuse it; check the clock",
                roughly(rest)
            ),
        }
    }
}

/// What was seen of the files lately.
#[derive(Default)]
struct Watch {
    /// The last time. Three files cannot be replaced at once, and not every program replaces one at once: only
    /// what is the same twice counts.
    seen: Option<Result<Files, String>>,
    /// What cannot be used, and was told.
    refused: Option<Result<Files, String>>,
}

impl Watch {
    /// Is something else used from now on?
    fn look(&mut self, rotation: &Rotation) -> bool {
        let node = rotation.node;
        let now = Files::read(&rotation.paths).map_err(|why| why.to_string());
        let again = self.seen.as_ref() == Some(&now);
        self.seen = Some(now.clone());
        if now.as_ref() == Ok(&rotation.current().files) {
            if self.refused.take().is_some() {
                tracing::info!(%node, "the certificates are again those that are in use");
            }
            return false;
        }
        if !again || self.refused.as_ref() == Some(&now) {
            return false;
        }
        let used =
            now.clone().and_then(|files| rotation.replace(files).map_err(|why| why.to_string()));
        match used {
            Ok(()) => {
                self.refused = None;
                let file = rotation.paths.certificate.display();
                tracing::info!(%node, %file, "the certificates have changed: new connections use the new ones");
                warn_about_access(node, &rotation.paths.key);
                true
            }
            Err(why) => {
                self.refused = Some(now);
                tracing::error!(
                    %node,
                    "the certificates have changed and cannot be used: {why}; the node goes on with the old ones"
                );
                false
            }
        }
    }
}

/// A private key that others can read is none.
fn warn_about_access(node: NodeId, key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let everyone = |metadata: std::fs::Metadata| metadata.permissions().mode() & 0o004 != 0;
    if std::fs::metadata(key).is_ok_and(everyone) {
        let key = key.display();
        tracing::warn!(%node, "every user of this machine can read the private key {key}: chmod 600");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, VALID};
    use super::*;

    #[test]
    fn only_what_is_whole_and_at_rest_takes_the_place_of_what_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        let names = ["n1.prod.raft.internal"];
        let write = |dir: &Path| {
            let [ca, certificate, key] = authority.write(dir, "n1", &names, VALID);
            TlsFiles { ca, certificate, key }
        };
        let paths = write(dir.path());
        let node = NodeId::new(1).unwrap();
        let rotation = Rotation::open(node, "prod".into(), paths.clone()).unwrap();
        let current = || rotation.current().files.certificate.clone();
        let first = current();
        let mut watch = Watch::default();
        let mut looks = |count| (0..count).filter(|_| watch.look(&rotation)).count();
        assert_eq!(looks(3), 0, "nothing has changed");

        // A new certificate, whose key comes later.
        let next = tempfile::tempdir().unwrap();
        let new = write(next.path());
        std::fs::copy(&new.certificate, &paths.certificate).unwrap();
        assert_eq!((looks(1), current() == first), (0, true), "not at rest yet");
        std::fs::copy(&new.key, &paths.key).unwrap();
        assert_eq!((looks(1), current() == first), (0, true), "changed again");
        assert_eq!((looks(3), current() == first), (1, false), "now");
        let second = current();

        // What cannot be used changes nothing, and is told once.
        for broken in [&b"nonsense"[..], b""] {
            std::fs::write(&paths.key, broken).unwrap();
            assert_eq!((looks(5), current() == second), (0, true));
        }
        std::fs::remove_file(&paths.key).unwrap();
        assert_eq!((looks(5), current() == second), (0, true));
        // What is in use comes back; then something newer.
        std::fs::copy(&new.key, &paths.key).unwrap();
        assert_eq!((looks(3), current() == second), (0, true));
        write(dir.path());
        assert_eq!((looks(3), current() == second), (1, false));
    }
}
