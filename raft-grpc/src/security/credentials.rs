//! What the files hold, checked and made into what TLS needs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};

use super::rotation::Files;
use super::{CertificateNames, TlsError, TlsFiles};

/// What both sides say that they are going to speak inside: HTTP/2.
const ALPN: &[u8] = b"h2";

/// What connections are made with until there is something newer.
pub(crate) struct Credentials {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) validity: Validity,
    /// What they were made of.
    pub(super) files: Files,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of a key.
        f.debug_struct("Credentials").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Checks everything that other nodes are going to check too, except that the certificate may not be valid
    /// yet, or no longer.
    pub(super) fn load(
        paths: &TlsFiles,
        files: Files,
        name: &str,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let unusable = |file: &std::path::Path, why: &dyn fmt::Display| TlsError::Unusable {
            file: file.to_owned(),
            why: why.to_string(),
        };
        let authorities = certificates(&files.ca).map_err(|why| unusable(&paths.ca, &why))?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|why| unusable(&paths.ca, &why))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate);
        let chain = chain.map_err(|why| unusable(&paths.certificate, &why))?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|why| {
            unusable(&paths.key, &format_args!("it holds no private key in PEM: {why}"))
        })?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifiers =
            Verifiers::new(roots, &provider).map_err(|why| unusable(&paths.ca, &why))?;
        let validity = verifiers.judge(&chain, name, now).map_err(|why| {
            let why = format!("not with the authorities of {}: {why}", paths.ca.display());
            unusable(&paths.certificate, &why)
        })?;
        // The verifiers would take a wildcard.
        let names = CertificateNames::of(&chain[0]);
        if !names.contain(name) {
            let why = format!("it names {names}, and must name {name}");
            return Err(unusable(&paths.certificate, &why));
        }
        let of_key = |why: rustls::Error| {
            let certificate = paths.certificate.display();
            unusable(&paths.key, &format_args!("not with the certificate {certificate}: {why}"))
        };
        let server = server(&provider, verifiers.client, chain.clone(), key.clone_key());
        let client = client(&provider, verifiers.server, chain, key);
        let (server, client) = (server.map_err(of_key)?, client.map_err(of_key)?);
        Ok(Self { server: Arc::new(server), client: Arc::new(client), validity, files })
    }
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|why| format!("it is damaged: {why}"))?;
    if found.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    Ok(found)
}

/// No early data, and no resumption: every connection shows its certificate, and leaves nothing behind.
fn server(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier);
    let mut config = builder.with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // It would tell the names of the cluster and the node to everyone on the way, and the server has only one
    // certificate to choose.
    config.enable_sni = false;
    Ok(config)
}

/// What judges the certificates of others, and first our own.
struct Verifiers {
    client: Arc<dyn ClientCertVerifier>,
    server: Arc<WebPkiServerVerifier>,
}

impl Verifiers {
    fn new(
        roots: Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let (for_clients, for_servers) = (Arc::clone(&roots), roots);
        let client = WebPkiClientVerifier::builder_with_provider(for_clients, Arc::clone(provider))
            .build()?;
        let server = WebPkiServerVerifier::builder_with_provider(for_servers, Arc::clone(provider))
            .build()?;
        Ok(Self { client, server })
    }

    /// Would others take this certificate for that of `name`, at a time at which it is valid? When is that?
    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        name: &str,
        now: SystemTime,
    ) -> Result<Validity, rustls::Error> {
        let (own, between) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| rustls::Error::General(format!("{name} is no DNS name")))?;
        let check = |time: u64| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(time));
            self.client.verify_client_cert(own, between, time)?;
            self.server.verify_server_cert(own, between, &server_name, &[], time).map(|_| ())
        };
        // Of a certificate between this one and the authority, perhaps.
        let now = seconds(now);
        let mut end = u64::MAX;
        if let Err(error) = check(now) {
            let time = time_of_validity(&error).ok_or(error)?;
            check(time)?;
            end = if time < now { time } else { end };
        }
        // At the beginning of time and at its end it says its limits.
        let limit = |time| check(time).err().as_ref().and_then(time_of_validity);
        let (from, until) = (limit(0).unwrap_or(0), limit(u64::MAX).unwrap_or(u64::MAX));
        Ok(Validity { from, until: until.min(end) })
    }
}

/// If that is all that is wrong with a certificate: the nearest time at which it is valid.
fn time_of_validity(error: &rustls::Error) -> Option<u64> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after, ..
        }) => Some(not_after.as_secs()),
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        }) => Some(not_before.as_secs()),
        _ => None,
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// What is to be said about a certificate and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validness {
    Valid,
    /// For so many seconds; it should be replaced.
    Ending(u64),
    /// Since so many seconds.
    Expired(u64),
    /// In so many seconds; or a clock is wrong.
    NotYet(u64),
}

const DAY: u64 = 24 * 60 * 60;

/// So long before its end a certificate is called to mind; earlier, if a third of its life is shorter.
const ENDING: u64 = 14 * DAY;

impl Validity {
    pub(crate) fn at(self, now: SystemTime) -> Validness {
        let Self { from, until } = self;
        let now = seconds(now);
        let ending = ENDING.min(until.saturating_sub(from) / 3);
        if now > until {
            Validness::Expired(now - until)
        } else if now < from {
            Validness::NotYet(from - now)
        } else if until - now <= ending {
            Validness::Ending(until - now)
        } else {
            Validness::Valid
        }
    }
}

/// Roughly how long that is.
pub(super) fn roughly(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / DAY, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}
