//! How nodes know each other: mutual TLS 1.3, with certificates that name the cluster and the node; or not at
//! all.
//!
//! The certificate of node 3 of the cluster `prod` has the DNS name `n3.prod.raft.internal` among its subject
//! alternative names. No resolver is ever asked for it: it is a name that every certificate authority can write
//! into a certificate, and that TLS libraries compare themselves. Both sides of a connection show a certificate
//! of an authority that is trusted for this cluster. Who calls node 3 goes on only if the certificate that it is
//! shown names node 3; who is called believes a greeting "from node 2" only if the caller's certificate names
//! node 2. A wildcard names nobody.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use raft_core::NodeId;

use crate::config::{ConfigError, NodeConfig};
use crate::error::StartError;

mod credentials;
mod rotation;
#[cfg(test)]
#[path = "../tests/harness/certificates.rs"]
pub(crate) mod testing;

pub(crate) use credentials::Credentials;
use rotation::{Files, Rotation};

/// How a node and its peers know each other, and who may listen to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerSecurity {
    /// Neither encryption nor proof of who is there, and therefore only at a loopback address: everything that
    /// runs on this machine is trusted.
    #[default]
    PlaintextOnLoopback,
    /// The same at any address: whoever can reach the port is believed whatever node it claims to be, and
    /// whoever can listen in reads and changes everything. For a network that is private by other means.
    Plaintext,
    /// Mutual TLS 1.3.
    Tls(TlsFiles),
}

/// The files with what a node needs for TLS, all PEM. They are read again when they change: new connections use
/// what they say then, those that exist go on. What cannot be used is told in the log, and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities that are trusted to say who is which node of this cluster; several
    /// while one takes the place of another.
    pub ca: PathBuf,
    /// The certificate of this node, with [its name](TlsFiles::node_name) and for use by servers and clients;
    /// after it those between it and the authority, if there are any.
    pub certificate: PathBuf,
    /// The private key of the certificate: PKCS #8, or as `openssl` writes keys for RSA and elliptic curves.
    pub key: PathBuf,
}

/// Why the files of [`TlsFiles`] cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be, or not for this node.
    #[error("{}: {why}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What all names of nodes end with. `internal` is a domain that nobody can own in the public DNS.
const DOMAIN: &str = "raft.internal";

impl TlsFiles {
    /// The DNS name that the certificate of a node must have: `n3.prod.raft.internal`.
    ///
    /// # Errors
    /// If the name of the cluster cannot be part of one: it must consist of 1 to 63 lower-case letters, digits and
    /// hyphens, and neither begin nor end with a hyphen.
    pub fn node_name(cluster: &str, node: NodeId) -> Result<String, ConfigError> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_label = (1..=63).contains(&cluster.len())
            && cluster.bytes().all(is_plain)
            && !cluster.starts_with('-')
            && !cluster.ends_with('-');
        if !is_label {
            let rule = "must be 1 to 63 lower-case letters, digits and inner hyphens, as certificates name it";
            let value = format!("{cluster:?}");
            return Err(ConfigError { field: "cluster", value, rule });
        }
        Ok(name_of(cluster, node))
    }

    /// Would a node start with these files? A certificate that is not valid now is no reason against it: a node
    /// says so in its log, and takes the next one without a restart.
    ///
    /// # Errors
    /// Why it would not.
    pub fn check(&self, cluster: &str, node: NodeId) -> Result<(), TlsError> {
        let name = Self::node_name(cluster, node);
        let name = name.map_err(|why| self.unusable_certificate(why.to_string()))?;
        Credentials::load(self, Files::read(self)?, &name, SystemTime::now())?;
        Ok(())
    }

    fn unusable_certificate(&self, why: String) -> TlsError {
        TlsError::Unusable { file: self.certificate.clone(), why }
    }
}

/// For a cluster with a name that certificates can hold.
fn name_of(cluster: &str, node: NodeId) -> String {
    format!("{node}.{cluster}.{DOMAIN}")
}

impl PeerSecurity {
    /// Checks what does not need the files.
    pub(crate) fn validate(&self, config: &NodeConfig) -> Result<(), ConfigError> {
        match self {
            Self::PlaintextOnLoopback if !is_loopback(config.listen) => Err(ConfigError {
                field: "security",
                value: format!("PlaintextOnLoopback, and listen = {}", config.listen),
                rule: "must be Tls, or Plaintext if everyone who can reach that address is trusted",
            }),
            Self::PlaintextOnLoopback | Self::Plaintext => Ok(()),
            Self::Tls(_) => TlsFiles::node_name(&config.cluster, config.id).map(|_| ()),
        }
    }

    /// Whoever runs a node without TLS should know what that means.
    pub(crate) fn warn(&self, node: NodeId) {
        match self {
            Self::Tls(_) => {}
            Self::PlaintextOnLoopback => tracing::warn!(
                %node,
                "no TLS between nodes: every program on this machine can pass itself off as one"
            ),
            Self::Plaintext => tracing::warn!(
                %node,
                "no TLS between nodes: whoever reaches the Raft port can pass itself off as one, read and \
                 change everything"
            ),
        }
    }
}

/// Can only this machine reach it?
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// How this node knows the others, while it runs.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    Plaintext,
    Tls(Arc<Rotation>),
}

impl Security {
    /// Reads the files.
    pub(crate) fn open(config: &NodeConfig) -> Result<Self, StartError> {
        match &config.security {
            PeerSecurity::PlaintextOnLoopback | PeerSecurity::Plaintext => Ok(Self::Plaintext),
            PeerSecurity::Tls(files) => {
                let (node, cluster) = (config.id, config.cluster.clone());
                Ok(Self::Tls(Arc::new(Rotation::open(node, cluster, files.clone())?)))
            }
        }
    }

    /// Of a node of this cluster with these files.
    #[cfg(test)]
    pub(crate) fn with_files(cluster: &str, node: NodeId, files: TlsFiles) -> Self {
        let rotation = Rotation::open(node, cluster.into(), files).expect("files of that node");
        Self::Tls(Arc::new(rotation))
    }

    /// What a new connection uses, unless it is plaintext.
    pub(crate) fn credentials(&self) -> Option<Arc<Credentials>> {
        match self {
            Self::Plaintext => None,
            Self::Tls(rotation) => Some(rotation.current()),
        }
    }
}

/// The names in a certificate that an authority of this cluster has signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CertificateNames(Vec<String>);

/// So many names are shown of a certificate that has the wrong ones.
const NAMES_SHOWN_MAX: usize = 4;

impl CertificateNames {
    pub(crate) fn of(certificate: &rustls::pki_types::CertificateDer<'_>) -> Self {
        // What cannot be read names nobody.
        let names = webpki::EndEntityCert::try_from(certificate)
            .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect());
        Self(names.unwrap_or_default())
    }

    /// Exactly this one is among them; `*` stands for itself here.
    pub(crate) fn contain(&self, name: &str) -> bool {
        self.0.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names) = self;
        match names.len() {
            0 => f.write_str("no node"),
            1..=NAMES_SHOWN_MAX => f.write_str(&names.join(", ")),
            count => write!(
                f,
                "{} and {} more",
                names[..NAMES_SHOWN_MAX].join(", "),
                count - NAMES_SHOWN_MAX
            ),
        }
    }
}

#[cfg(test)]
mod tests;
