//! Certificates of all kinds: for nodes, for strangers, expired, of another authority.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

pub const DAY: i64 = 24 * 60 * 60;

/// From a day ago, for a year.
pub const VALID: Range<i64> = -DAY..365 * DAY;

/// Who signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its key, both PEM, valid in this range of seconds from now.
    pub fn sign(&self, names: &[&str], valid: Range<i64>) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let epoch = rcgen::date_time_ymd(1970, 1, 1) + now;
        let at = |seconds: i64| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { epoch - distance } else { epoch + distance }
        };
        (params.not_before, params.not_after) = (at(valid.start), at(valid.end));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes `STEM-ca.pem`, `STEM.pem` and `STEM.key`.
    pub fn write(&self, dir: &Path, stem: &str, names: &[&str], valid: Range<i64>) -> [PathBuf; 3] {
        let (certificate, key) = self.sign(names, valid);
        let suffixes = ["-ca.pem", ".pem", ".key"];
        let paths = suffixes.map(|suffix| dir.join(format!("{stem}{suffix}")));
        for (path, content) in paths.iter().zip([self.pem(), certificate, key]) {
            std::fs::write(path, content).expect("a file");
        }
        paths
    }
}
