//! Nodes that speak TLS: whoever cannot prove who it is, or is somebody else, is refused with a line in the log,
//! and the cluster goes on; certificates change while it runs.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::certificates::{Authority, DAY, VALID};
use harness::logs::lines_with;
use harness::{Cluster, Counter, Running, id, number_command, wait_for};
use raft_grpc::{PeerSecurity, StartError, TlsFiles};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

/// Nodes of the cluster `test` with certificates of `authority`, not running yet.
fn cluster(size: usize, authority: &Authority) -> Cluster {
    let mut cluster = Cluster::new(size);
    for number in 1..=size {
        let name = format!("n{number}.test.raft.internal");
        certify(&mut cluster, number, authority, &name, VALID);
    }
    cluster
}

/// Gives a node a certificate.
fn certify(
    cluster: &mut Cluster,
    number: usize,
    authority: &Authority,
    name: &str,
    valid: std::ops::Range<i64>,
) {
    let stem = format!("n{number}-tls");
    let [ca, certificate, key] = authority.write(cluster.dir.path(), &stem, &[name], valid);
    cluster.configs[number - 1].security = PeerSecurity::Tls(TlsFiles { ca, certificate, key });
}

fn files(cluster: &Cluster, number: usize) -> TlsFiles {
    match &cluster.configs[number - 1].security {
        PeerSecurity::Tls(files) => files.clone(),
        other => panic!("it has {other:?}"),
    }
}

fn started(size: usize, authority: &Authority) -> Cluster {
    let mut cluster = cluster(size, authority);
    for number in 1..=size {
        cluster.start(number);
    }
    cluster
}

fn wait_for_links(cluster: &Cluster, number: usize) {
    wait_for("the links", || {
        let links = cluster.handle(number).status().peers;
        links.iter().all(|link| link.connected).then_some(())
    });
}

fn wait_for_line(parts: &[&str]) {
    wait_for(&format!("{parts:?} in the log"), || (lines_with(parts) > 0).then_some(()));
}

#[test]
fn nodes_with_certificates_elect_and_commit() {
    let cluster = started(3, &Authority::new("ours"));
    let leader = cluster.leader();
    for number in 1..=3 {
        wait_for_links(&cluster, number);
        // At the leader, or forwarded to it.
        let sum = cluster.propose(number, 10).expect("it is committed");
        assert_eq!(sum, 10 * number as u64, "leader {leader}");
    }
    assert_eq!(cluster.agreed_state(), (30, 3));
}

#[test]
fn a_node_does_not_start_with_the_certificate_of_another() {
    let authority = Authority::new("ours");
    let mut cluster = cluster(2, &authority);
    cluster.configs[0].security = cluster.configs[1].security.clone();
    let started = Running::start(cluster.configs[0].clone(), Counter::default());
    let Err(StartError::Tls(error)) = started else { panic!("it started") };
    let words = error.to_string();
    assert!(words.contains("n1.test.raft.internal") && words.contains("n2-tls.pem"), "{words}");
    assert!(!cluster.configs[0].data_dir.exists(), "nothing was touched");
}

#[test]
fn a_node_with_a_certificate_of_another_authority_is_refused_and_not_believed() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let mut cluster = cluster(3, &ours);
    // Node 2 is for itself what it should be, and believes the others.
    certify(&mut cluster, 2, &theirs, "n2.test.raft.internal", VALID);
    std::fs::write(files(&cluster, 2).ca, ours.pem() + &theirs.pem()).expect("a file");
    for number in 1..=3 {
        cluster.start(number);
    }
    wait_for_line(&["refused a connection", "UnknownIssuer"]);
    wait_for_line(&["no connection to n2", "UnknownIssuer"]);
    let two = cluster.take(2);
    assert!(two.handle.status().peers.iter().all(|link| !link.connected));
    assert_eq!(two.handle.status().raft.leader, None, "it has heard nothing");
    cluster.propose(1, 1).expect("the cluster goes on");
}

#[test]
fn who_calls_a_node_and_finds_another_one_goes_away() {
    let mut cluster = cluster(3, &Authority::new("ours"));
    // Node 1 believes that node 2 lives where node 3 does.
    let three = cluster.configs[2].listen.to_string();
    cluster.configs[0].peers.insert(id(2), three.clone());
    cluster.start(1);
    cluster.start(3);
    let line = ["node=n1", "no connection to n2", &three, "n2.test.raft.internal"];
    wait_for_line(&line);
    cluster.propose(3, 1).expect("nodes 1 and 3 are a majority");
}

#[test]
fn a_node_of_another_cluster_is_refused_although_the_authority_is_the_same() {
    let ours = Authority::new("ours");
    let mut cluster = cluster(3, &ours);
    certify(&mut cluster, 2, &ours, "n2.another.raft.internal", VALID);
    cluster.configs[1].cluster = "another".into();
    for number in 1..=3 {
        cluster.start(number);
    }
    // It does not believe them, nor they it.
    wait_for_line(&["node=n2", "no connection to n1", "n1.another.raft.internal"]);
    wait_for_line(&["no connection to n2", "n2.another.raft.internal"]);
    cluster.take(2).kill();
    cluster.propose(1, 1).expect("the cluster goes on");
}

#[test]
fn an_expired_certificate_is_refused_until_it_is_replaced() {
    let authority = Authority::new("ours");
    let mut cluster = cluster(3, &authority);
    let name = "n2.test.raft.internal";
    certify(&mut cluster, 2, &authority, name, -30 * DAY..-2 * DAY);
    for number in 1..=3 {
        cluster.start(number);
    }
    wait_for_line(&["ERROR", "node=n2", "expired 2 days ago"]);
    wait_for_line(&["refused a connection", "certificate expired"]);
    wait_for_line(&["no connection to n2", "certificate expired"]);
    cluster.propose(1, 1).expect("the others are a majority");
    assert!(cluster.handle(2).status().peers.iter().all(|link| !link.connected));
    // No restart.
    certify(&mut cluster, 2, &authority, name, -9 * DAY..2 * DAY);
    wait_for_links(&cluster, 2);
    assert_eq!(cluster.propose(2, 1), Ok(2));
    wait_for_line(&["WARN", "node=n2", "expires in"]);
}

#[test]
fn certificates_and_their_authority_change_while_the_cluster_writes() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut cluster = started(3, &old);
    cluster.leader();
    let stop = Arc::new(AtomicBool::new(false));
    let (handle, stopped) = (cluster.handle(1), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                handle.propose(number_command(1)).await.expect("nobody notices");
                written += 1;
            }
            written
        })
    });
    // Other tests of this program write into the same log.
    let dir = cluster.dir.path().display().to_string();
    let changes = || lines_with(&["the certificates have changed: new connections", &dir]);
    let all_changed = |before: usize| {
        wait_for("the change", || (changes() >= before + 3).then_some(()));
    };
    let before = changes();
    for number in 1..=3 {
        std::fs::write(files(&cluster, number).ca, old.pem() + &new.pem()).expect("a file");
    }
    all_changed(before);
    let before = changes();
    for number in 1..=3 {
        certify(&mut cluster, number, &new, &format!("n{number}.test.raft.internal"), VALID);
    }
    all_changed(before);
    stop.store(true, Ordering::Relaxed);
    let written: u64 = writer.join().expect("every write succeeded");
    assert!(written > 0);
    // Who comes back trusts the new authority only, and so do those who were there all the time.
    cluster.kill(3);
    cluster.start(3);
    wait_for_links(&cluster, 3);
    assert_eq!(cluster.propose(3, 1), Ok(written + 1));
    // What cannot be used changes nothing.
    let certificate = files(&cluster, 1).certificate;
    std::fs::write(&certificate, "nonsense").expect("a file");
    let file = certificate.display().to_string();
    wait_for_line(&["ERROR", "node=n1", "cannot be used", &file, "goes on with the old"]);
    cluster.kill(3);
    cluster.start(3);
    wait_for_links(&cluster, 3);
    assert_eq!(cluster.propose(3, 1), Ok(written + 2));
}

#[test]
fn a_node_without_tls_among_nodes_with_tls_is_told_so_and_the_other_way_round() {
    let mut cluster = cluster(3, &Authority::new("ours"));
    cluster.configs[1].security = PeerSecurity::PlaintextOnLoopback;
    for number in 1..=3 {
        cluster.start(number);
    }
    wait_for_line(&["WARN", "node=n2", "no TLS between nodes"]);
    wait_for_line(&["node=n2", "refused a connection", "it speaks TLS, and this node was started"]);
    wait_for_line(&["node=n2", "no connection to n1", "it speaks TLS, and this node was started"]);
    wait_for_line(&["node=n1", "refused a connection", "does not speak TLS, as this node does"]);
    wait_for_line(&["node=n1", "no connection to n2", "speak", "TLS", "was it started without"]);
    let two = cluster.take(2);
    assert!(two.handle.status().peers.iter().all(|link| !link.connected));
    assert_eq!(two.handle.status().raft.leader, None, "it has heard nothing");
    cluster.propose(1, 1).expect("the cluster goes on");
}

/// Sends bytes and reads until the other side closes; an error if it does not.
fn closed_after(address: SocketAddr, bytes: &[u8]) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(harness::PATIENCE))?;
    // The other side may close before everything is written, and may reset.
    let _ = connection.write_all(bytes);
    match connection.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

#[test]
fn garbage_on_the_port_is_refused() {
    let cluster = started(3, &Authority::new("ours"));
    cluster.propose(1, 1).expect("nothing is broken");
    let address = cluster.configs[0].listen;
    let tls = |length: u16| [&[0x16, 3, 1][..], &length.to_be_bytes(), &[1; 20000]].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        tls(512),
        tls(16384),
        tls(u16::MAX),
    ] {
        closed_after(address, &garbage).expect("it is closed");
    }
    wait_for_line(&["refused a connection", "it does not speak TLS"]);
    cluster.propose(1, 1).expect("the cluster goes on");
}

/// A client that believes the nodes of this authority, without a certificate of its own.
fn anonymous(authority: &Authority, name: &str, address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(certificate.expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("it is there")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let client = rustls::ClientConnection::new(Arc::new(config), server).expect("a client");
    let connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(harness::PATIENCE))?;
    let mut stream = rustls::StreamOwned::new(client, connection);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new("ours");
    let cluster = started(1, &authority);
    let address = cluster.configs[0].listen;
    let refused = anonymous(&authority, "n1.test.raft.internal", address).expect_err("refused");
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
    wait_for_line(&["refused a connection", "peer sent no certificates"]);
    cluster.propose(1, 1).expect("the cluster goes on");
}

#[test]
fn connections_that_say_nothing_are_few_and_do_not_stay() {
    let cluster = started(3, &Authority::new("ours"));
    cluster.propose(1, 1).expect("nothing is broken");
    for number in 1..=3 {
        wait_for_links(&cluster, number);
    }
    let connect = |_| TcpStream::connect(cluster.configs[0].listen).expect("it listens");
    let silent: Vec<TcpStream> = (0..200).map(connect).collect();
    wait_for_line(&["refused a connection", "128 TLS handshakes are under way"]);
    cluster.propose(1, 1).expect("the cluster goes on");
    for mut connection in silent {
        connection.set_read_timeout(Some(harness::PATIENCE)).expect("a timeout");
        let read = connection.read_to_end(&mut Vec::new());
        assert!(!read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    wait_for_line(&["refused a connection", "no TLS handshake in time"]);
}

#[test]
fn a_key_that_everyone_can_read_is_worth_a_line() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut cluster = cluster(1, &Authority::new("ours"));
    let key: PathBuf = files(&cluster, 1).key;
    let chmod = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode));
    chmod(0o604).expect("it is ours");
    cluster.start(1);
    let file = key.display().to_string();
    wait_for_line(&["WARN", "every user", &file]);
    cluster.kill(1);
    let lines = lines_with(&["every user", &file]);
    chmod(0o600).expect("it is ours");
    cluster.start(1);
    cluster.propose(1, 1).expect("it runs");
    assert_eq!(lines_with(&["every user", &file]), lines);
}
