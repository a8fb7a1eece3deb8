use std::time::{Duration, UNIX_EPOCH};

use super::credentials::{Validity, Validness, roughly};
use super::testing::{Authority, DAY, VALID};
use super::*;

const NAME: &str = "n1.prod.raft.internal";

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn files([ca, certificate, key]: [PathBuf; 3]) -> TlsFiles {
    TlsFiles { ca, certificate, key }
}

/// What the check for node 1 of `prod` says to files that this makes.
fn checked(make: impl FnOnce(&std::path::Path) -> [PathBuf; 3]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    files(make(dir.path())).check("prod", id(1)).map_err(|why| why.to_string())
}

#[test]
fn a_name_says_the_cluster_and_the_node() {
    assert_eq!(TlsFiles::node_name("prod", id(3)).unwrap(), "n3.prod.raft.internal");
    let longest = "x".repeat(63);
    assert!(TlsFiles::node_name(&longest, id(u64::MAX)).is_ok());
    for wrong in ["", "Prod", "a.b", "-a", "a-", "a b", "ä", "*", &"x".repeat(64)] {
        let error = TlsFiles::node_name(wrong, id(1)).unwrap_err();
        assert_eq!(error.field, "cluster", "{wrong}");
    }
}

#[test]
fn the_certificate_must_be_that_of_the_node() {
    let authority = Authority::new("ours");
    let with = |names: &[&str]| checked(|dir| authority.write(dir, "n", names, VALID));
    assert_eq!(with(&[NAME]), Ok(()));
    assert_eq!(with(&["localhost", "N1.Prod.raft.internal"]), Ok(()), "case means nothing");
    for wrong in [
        "n2.prod.raft.internal",
        "n1.test.raft.internal",
        "*.prod.raft.internal",
        "n1.prod.raft.internal.example",
        "localhost",
    ] {
        let why = with(&[wrong]).unwrap_err();
        assert!(why.contains(NAME) && why.contains(wrong), "{why}");
    }
    // A wildcard beside the name is no harm to this node, and no name of another one.
    assert_eq!(with(&[NAME, "*.prod.raft.internal"]), Ok(()));
    let (pem, _) = authority.sign(&["*.prod.raft.internal"], VALID);
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let names = CertificateNames::of(&der);
    assert!(!names.contain(NAME), "{names}");
    assert_eq!(CertificateNames::of(&b"nonsense"[..].into()).to_string(), "no node");
}

#[test]
fn each_file_that_cannot_be_used_is_named() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let write = |dir: &std::path::Path| ours.write(dir, "n1", &[NAME], VALID);
    let replaced = |which: usize, content: &str| {
        checked(|dir| {
            let paths = write(dir);
            std::fs::write(&paths[which], content).unwrap();
            paths
        })
        .unwrap_err()
    };
    let no_pem = ["n1-ca.pem: it holds no cert", "n1.pem: it holds no cert", "n1.key: it holds no"];
    for (which, words) in no_pem.into_iter().enumerate() {
        for content in ["", "nonsense", "-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n"]
        {
            let why = replaced(which, content);
            assert!(why.contains(words), "{why}");
        }
        let missing = checked(|dir| {
            let paths = write(dir);
            std::fs::remove_file(&paths[which]).unwrap();
            paths
        });
        assert!(missing.unwrap_err().starts_with("cannot read"));
    }
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(replaced(0, damaged).contains("n1-ca.pem"));
    assert!(replaced(1, damaged).contains("n1.pem"));
    assert!(replaced(0, &theirs.pem()).contains("n1.pem: not with the authorities of"));
    let why = replaced(2, &ours.sign(&[NAME], VALID).1);
    assert!(why.contains("n1.key: not with the certificate"), "{why}");
    assert!(replaced(2, &"x".repeat(2 << 20)).contains("larger than 1 MiB"));
    // Two authorities, while one takes the place of the other.
    let both = checked(|dir| {
        let paths = write(dir);
        std::fs::write(&paths[0], theirs.pem() + &ours.pem()).unwrap();
        paths
    });
    assert_eq!(both, Ok(()));
}

#[test]
fn a_certificate_knows_when_it_is_valid_and_is_used_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let now = SystemTime::now();
    let validness = |valid| {
        let paths = files(authority.write(dir.path(), "n1", &[NAME], valid));
        let read = Files::read(&paths).unwrap();
        Credentials::load(&paths, read, NAME, now).unwrap().validity.at(now)
    };
    assert_eq!(validness(VALID), Validness::Valid);
    // The certificates are made a moment later.
    let near = |seconds: u64, expected: i64| seconds.abs_diff(expected.unsigned_abs()) < 30;
    let ending = validness(-100 * DAY..13 * DAY);
    assert!(matches!(ending, Validness::Ending(rest) if near(rest, 13 * DAY)), "{ending:?}");
    let expired = validness(-100 * DAY..-DAY);
    assert!(matches!(expired, Validness::Expired(since) if near(since, DAY)), "{expired:?}");
    let early = validness(DAY..9 * DAY);
    assert!(matches!(early, Validness::NotYet(rest) if near(rest, DAY)), "{early:?}");
    // Of another authority it is never used, expired or not.
    let paths = files(Authority::new("theirs").write(dir.path(), "n1", &[NAME], -9 * DAY..-DAY));
    std::fs::write(&paths.ca, authority.pem()).unwrap();
    assert!(paths.check("prod", id(1)).is_err());
}

#[test]
fn a_certificate_is_called_to_mind_two_weeks_before_its_end_or_in_its_last_third() {
    let day = DAY.unsigned_abs();
    let at = |from, until, now| Validity { from, until }.at(UNIX_EPOCH + Duration::from_secs(now));
    assert_eq!(at(0, 90 * day, 75 * day), Validness::Valid);
    assert_eq!(at(0, 90 * day, 76 * day), Validness::Ending(14 * day));
    assert_eq!(at(0, 90 * day, 90 * day), Validness::Ending(0));
    assert_eq!(at(0, 90 * day, 90 * day + 1), Validness::Expired(1));
    assert_eq!(at(9, 90 * day, 8), Validness::NotYet(1));
    assert_eq!(at(0, 3 * day, day), Validness::Valid);
    assert_eq!(at(0, 3 * day, 2 * day), Validness::Ending(day));
    let rough = [(0, "0 seconds"), (1, "1 second"), (3600, "60 minutes"), (14 * day, "14 days")];
    for (seconds, words) in rough {
        assert_eq!(roughly(seconds), words);
    }
}
