//! `leaderboard certs`: an authority of the cluster's own, and a certificate for each node, for TLS between them.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use raft_grpc::{ConfigError, NodeId, TlsError, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::node::node_id;

/// Options of `leaderboard certs`.
#[derive(Clone, Debug, clap::Args)]
pub struct CertsArgs {
    /// Where the files go: ca.pem and ca.key, and for each node n1.pem and n1.key. An authority that is there
    /// already signs for more nodes
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The cluster's name, as for `leaderboard node`, which the certificates hold: lower-case letters, digits
    /// and hyphens
    #[arg(long, env = "LEADERBOARD_CLUSTER", value_name = "NAME", default_value = "leaderboard")]
    pub cluster: String,
    /// The numbers of the nodes
    #[arg(
        long,
        value_name = "ID,…",
        value_delimiter = ',',
        required = true,
        value_parser = node_id
    )]
    pub nodes: Vec<NodeId>,
    /// How long the certificates of the nodes are valid
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=3650)
    )]
    pub days: u32,
    /// Replace certificates of these nodes that are there already. A node that uses them takes the new ones
    /// within seconds, without a restart
    #[arg(long)]
    pub renew: bool,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A certificate cannot hold such a name.
    #[error(transparent)]
    Name(#[from] ConfigError),
    /// Files would be overwritten.
    #[error("{} is there already: --renew replaces it", .0.display())]
    Exists(PathBuf),
    /// One half of the authority is missing.
    #[error("{} is missing: without it the authority of {} cannot sign", .0.display(), .1.display())]
    NoAuthority(PathBuf, PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key of the authority cannot be used, or the system gives out no random numbers.
    #[error("cannot sign with {}: {source}", key.display())]
    Sign {
        /// The key of the authority.
        key: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
    /// A node could not use what was made.
    #[error("{source}; is the authority in {} that of the cluster {cluster:?}?", dir.display())]
    Unusable {
        /// Where the authority is.
        dir: PathBuf,
        /// Whose it should be.
        cluster: String,
        /// Why not.
        source: TlsError,
    },
}

/// How long the authority's own certificate says that it is valid. Nodes do not look at that: what they trust, they trust
/// until its file is replaced.
const AUTHORITY_DAYS: u64 = 3650;

/// Clocks that are behind by so much take a new certificate.
const CLOCKS_BEHIND: Duration = Duration::from_secs(60 * 60);

/// Where the certificate of the authority is.
fn ca(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

fn ca_key(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

/// Where [`make`] puts what a node needs.
#[must_use]
pub fn files(dir: &Path, node: NodeId) -> TlsFiles {
    TlsFiles {
        ca: ca(dir),
        certificate: dir.join(format!("{node}.pem")),
        key: dir.join(format!("{node}.key")),
    }
}

/// Makes the certificates, and the authority if there is none; tells whether there was none. Nothing is replaced
/// before everything is made and checked as a node would check it.
///
/// # Errors
/// If files would be overwritten, the authority is incomplete or of another cluster, or a file cannot be read
/// or written.
pub fn make(args: &CertsArgs) -> Result<bool, CertsError> {
    let CertsArgs { out, cluster, nodes, days, renew } = args;
    let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
    for &node in &nodes {
        TlsFiles::node_name(cluster, node)?;
        let TlsFiles { ca: _, certificate, key } = files(out, node);
        if let Some(file) = [certificate, key].into_iter().find(|file| file.exists() && !renew) {
            return Err(CertsError::Exists(file));
        }
    }
    fs::create_dir_all(out).map_err(|source| CertsError::File { file: out.clone(), source })?;
    let mut drafts = Drafts::default();
    let (authority, is_new) = Authority::open(out, cluster, &mut drafts)?;
    let ca = if is_new { draft(&ca(out)) } else { ca(out) };
    for &node in &nodes {
        let TlsFiles { certificate, key, .. } = files(out, node);
        let (certificate_pem, key_pem) = authority.certify(node, *days)?;
        // The key first: it is nothing without the certificate.
        drafts.write(&key, &key_pem, PRIVATE)?;
        drafts.write(&certificate, &certificate_pem, PUBLIC)?;
        let drafted =
            TlsFiles { ca: ca.clone(), certificate: draft(&certificate), key: draft(&key) };
        let checked = drafted.check(cluster, node);
        checked.map_err(|source| CertsError::Unusable {
            dir: out.clone(),
            cluster: cluster.clone(),
            source,
        })?;
    }
    drafts.publish()?;
    Ok(is_new)
}

/// Who signs.
struct Authority {
    cluster: String,
    key_file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Takes the one that is there, or drafts one; tells whether there was none.
    fn open(dir: &Path, cluster: &str, drafts: &mut Drafts) -> Result<(Self, bool), CertsError> {
        let (ca, key_file) = (ca(dir), ca_key(dir));
        let sign = |source| CertsError::Sign { key: ca_key(dir), source };
        let is_new = match (ca.exists(), key_file.exists()) {
            (true, true) => false,
            (false, false) => true,
            (false, true) => return Err(CertsError::NoAuthority(ca, dir.to_owned())),
            (true, false) => return Err(CertsError::NoAuthority(key_file, dir.to_owned())),
        };
        let params = authority_of(cluster);
        let key = if is_new {
            let key = KeyPair::generate().map_err(sign)?;
            let certificate = params.self_signed(&key).map_err(sign)?;
            drafts.write(&key_file, &key.serialize_pem(), PRIVATE)?;
            drafts.write(&ca, &certificate.pem(), PUBLIC)?;
            key
        } else {
            let pem = fs::read_to_string(&key_file);
            let pem = pem.map_err(|source| CertsError::File { file: key_file.clone(), source })?;
            KeyPair::from_pem(&pem).map_err(sign)?
        };
        // It signs under the name that it got when it was made, which follows from the cluster's.
        let issuer = Issuer::new(params, key);
        Ok((Self { cluster: cluster.to_owned(), key_file, issuer }, is_new))
    }

    /// A certificate and its key, both PEM.
    fn certify(&self, node: NodeId, days: u32) -> Result<(String, String), CertsError> {
        let sign = |source| CertsError::Sign { key: self.key_file.clone(), source };
        let name = TlsFiles::node_name(&self.cluster, node)?;
        let mut params = CertificateParams::new([name]).map_err(sign)?;
        params.distinguished_name = named(&node.to_string(), &self.cluster);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, days.into());
        let key = KeyPair::generate().map_err(sign)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn authority_of(cluster: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("raft nodes", cluster);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, AUTHORITY_DAYS);
    params
}

fn named(common: &str, cluster: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::OrganizationName, cluster);
    name.push(DnType::CommonName, common);
    name
}

fn valid_for(params: &mut CertificateParams, days: u64) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - CLOCKS_BEHIND;
    params.not_after = now + Duration::from_secs(days * 24 * 60 * 60);
}

/// Who may read a file besides its owner.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Files that wait beside their places until all of them are good. Dropped before, they are removed.
#[derive(Default)]
struct Drafts(Vec<PathBuf>);

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

impl Drafts {
    fn write(&mut self, path: &Path, content: &str, mode: u32) -> Result<(), CertsError> {
        let file = draft(path);
        let _ = fs::remove_file(&file); // Of a run that was interrupted, with whatever permissions.
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(mode).open(&file);
        let written = opened.and_then(|mut opened| {
            self.0.push(path.to_owned());
            opened.write_all(content.as_bytes())?;
            opened.sync_all()
        });
        written.map_err(|source| CertsError::File { file, source })
    }

    fn publish(&mut self) -> Result<(), CertsError> {
        for path in &self.0 {
            fs::rename(draft(path), path)
                .map_err(|source| CertsError::File { file: path.clone(), source })?;
        }
        self.0.clear();
        Ok(())
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(draft(path));
        }
    }
}

/// Makes what the options ask for, and says what to do with it.
pub(crate) fn run(args: &CertsArgs) -> Result<String, CertsError> {
    let is_new = make(args)?;
    let CertsArgs { out, cluster, days, .. } = args;
    let (ca, ca_key) = (ca(out), ca_key(out));
    let (ca, ca_key) = (ca.display(), ca_key.display());
    let mut words = match is_new {
        true => format!("{ca} is the new authority of the cluster {cluster:?}."),
        false => format!("{ca} was there already and has signed."),
    };
    words.push_str(&format!(
        "\nWhoever has {ca_key} can pass for any node: keep it away from them. Valid for {days} days:\n"
    ));
    for &node in args.nodes.iter().collect::<BTreeSet<_>>() {
        let TlsFiles { ca, certificate, key } = files(out, node);
        words.push_str(&format!(
            "\nleaderboard node --id {} --cluster {cluster} … \\\n    --tls-ca {} --tls-cert {} --tls-key {}\n",
            node.get(),
            ca.display(),
            certificate.display(),
            key.display()
        ));
    }
    Ok(words)
}

#[cfg(test)]
mod tests;
