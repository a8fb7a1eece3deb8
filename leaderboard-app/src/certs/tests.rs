use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn args(out: &Path, nodes: &[u64]) -> CertsArgs {
    CertsArgs {
        out: out.to_owned(),
        cluster: "prod".into(),
        nodes: nodes.iter().map(|&number| id(number)).collect(),
        days: 90,
        renew: false,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_authority_and_nodes_that_can_start_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/certs");
    let words = run(&args(&out, &[1, 2, 2])).unwrap();
    assert!(words.contains("new authority of the cluster \"prod\""), "{words}");
    assert_eq!(words.matches("--tls-cert").count(), 2, "{words}");
    assert!(words.contains("n2.key"), "{words}");
    let all = ["ca.key", "ca.pem", "n1.key", "n1.pem", "n2.key", "n2.pem"];
    assert_eq!(names(&out), all);
    for name in all {
        let mode = fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        let is_key = name.ends_with(".key");
        assert!(if is_key { mode == 0o600 } else { mode & !0o644 == 0 }, "{name}: {mode:o}");
    }
    files(&out, id(1)).check("prod", id(1)).unwrap();
    files(&out, id(2)).check("prod", id(2)).unwrap();
    // Each is for its node and its cluster only.
    assert!(files(&out, id(1)).check("prod", id(2)).is_err());
    assert!(files(&out, id(1)).check("test", id(1)).is_err());
}

#[test]
fn nothing_is_overwritten_unless_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    make(&args(dir.path(), &[1])).unwrap();
    let before = ["ca.pem", "ca.key", "n1.pem", "n1.key"].map(read);
    let error = make(&args(dir.path(), &[2, 1])).unwrap_err();
    assert!(matches!(&error, CertsError::Exists(file) if file.ends_with("n1.pem")), "{error}");
    assert_eq!(names(dir.path()).len(), 4, "not even node 2");
    // Another node, by the same authority.
    let words = run(&args(dir.path(), &[2])).unwrap();
    assert!(words.contains("was there already"), "{words}");
    files(dir.path(), id(2)).check("prod", id(2)).unwrap();
    assert_eq!(["ca.pem", "ca.key", "n1.pem", "n1.key"].map(read), before);
    // New certificates, by the same authority.
    assert!(!make(&CertsArgs { renew: true, ..args(dir.path(), &[1]) }).unwrap());
    assert_eq!(["ca.pem", "ca.key"].map(read), before[..2]);
    assert!(["n1.pem", "n1.key"].map(read).iter().zip(&before[2..]).all(|(new, old)| new != old));
    files(dir.path(), id(1)).check("prod", id(1)).unwrap();
    assert_eq!(names(dir.path()).len(), 6);
}

#[test]
fn an_authority_that_cannot_sign_for_the_cluster_leaves_everything_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("ours");
    make(&args(&ours, &[1])).unwrap();
    let before = names(&ours);
    let mut other = args(&ours, &[2]);
    other.cluster = "test".into();
    let error = make(&other).unwrap_err();
    assert!(error.to_string().contains("that of the cluster \"test\""), "{error}");
    assert_eq!(names(&ours), before);
    // The key of another authority.
    let theirs = dir.path().join("theirs");
    make(&args(&theirs, &[1])).unwrap();
    fs::copy(theirs.join("ca.key"), ours.join("ca.key")).unwrap();
    let error = make(&args(&ours, &[2])).unwrap_err();
    assert!(matches!(error, CertsError::Unusable { .. }), "{error}");
    fs::write(ours.join("ca.key"), "nonsense").unwrap();
    assert!(matches!(make(&args(&ours, &[2])), Err(CertsError::Sign { .. })));
    fs::remove_file(ours.join("ca.key")).unwrap();
    let error = make(&args(&ours, &[2])).unwrap_err();
    assert!(error.to_string().contains("ca.key is missing"), "{error}");
    assert_eq!(names(&ours), ["ca.pem", "n1.key", "n1.pem"]);
}

#[test]
fn a_cluster_whose_name_no_certificate_can_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = args(dir.path(), &[1]);
    wrong.cluster = "Our Cluster".into();
    assert!(matches!(make(&wrong), Err(CertsError::Name(_))));
    assert!(names(dir.path()).is_empty());
}
