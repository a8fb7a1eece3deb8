//! A certificate that is good, and words that are not true: nobody is somebody else.

use std::net::TcpListener;

use super::*;
use crate::node::testing::Count;
use crate::security::Security;
use crate::security::testing::{Authority, VALID};
use crate::{NodeConfig, PeerSecurity, RaftHandle, TlsFiles};

/// Node 1 of `test`, which could also be one of `another`.
struct Setup {
    node: RaftHandle<Count>,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Setup {
    async fn start() -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
        let names = ["n1.test.raft.internal", "n1.another.raft.internal"];
        let files = files(authority.write(dir.path(), "n1", &names, VALID));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peers = (1..=3).map(|number| (id(number), format!("localhost:{number}"))).collect();
        let listen = listener.local_addr().unwrap();
        let mut config = NodeConfig::new("test", id(1), dir.path().join("data"), listen, peers);
        config.security = PeerSecurity::Tls(files);
        let (node, _task) = crate::start_on(listener, config, Count(0)).await.unwrap();
        Self { node, authority, dir }
    }

    /// Says `hello` in every way, and gives an order, on a connection with the certificate `name`, which is good for `node` of
    /// `cluster`. How does it end?
    async fn greet(
        &self,
        cluster: &str,
        node: u64,
        name: &str,
        hello: &wire::Hello,
    ) -> [Result<(), Status>; 3] {
        let files = files(self.authority.write(self.dir.path(), "liar", &[name], VALID));
        let mut who = identity_of(cluster, node, &[1, 2, 3], 0);
        who.security = Security::with_files(cluster, id(node), files);
        let address = self.node.local_addr().to_string();
        who.book.merge(vec![wire::Member { node: 1, address, version: 1, ..Default::default() }]);
        let mut client = connect(&who, id(1)).await.unwrap();
        let first = Forward::Hello(hello.clone());
        let first = tokio_stream::once(wire::ForwardRequest { content: Some(first) });
        let forward = async {
            let mut replies = client.forward(first).await?.into_inner();
            while replies.message().await?.is_some() {}
            Ok(())
        };
        let forward = forward.await;
        let nonsense = Peer::Hello(hello.clone());
        // Whoever is let in is shown out for saying hello twice.
        let peer = peer_end(&mut client, vec![Peer::Hello(hello.clone()), nonsense]).await;
        let peer = peer.or_else(|end| match end.message() {
            "expected a frame of messages" => Ok(()),
            _ => Err(end),
        });
        let order = wire::OrderRequest {
            hello: Some(hello.clone()),
            timeout_ms: 10,
            order: Some(wire::order_request::Order::Promote(2)),
        };
        // What becomes of it is another matter.
        let order = client.order(order).await.map(|_| ());
        [forward, peer, order]
    }
}

fn files([ca, certificate, key]: [std::path::PathBuf; 3]) -> TlsFiles {
    TlsFiles { ca, certificate, key }
}

/// What node 2 says to node 1; and where it is.
fn hello() -> wire::Hello {
    let two = identity_of("test", 2, &[1, 2, 3], 0);
    let address = "elsewhere:2".to_owned();
    let elsewhere = wire::Member { node: 2, address, version: 7, ..Default::default() };
    wire::Hello { members: vec![elsewhere], ..two.hello(id(1)) }
}

#[tokio::test]
async fn nobody_is_believed_to_be_a_node_that_its_certificate_does_not_name() {
    let setup = Setup::start().await;
    let before = setup.node.addresses();
    // As node 3, and as a node 2 of another cluster that has the same authority.
    for (cluster, node, name) in
        [("test", 3, "n3.test.raft.internal"), ("another", 2, "n2.another.raft.internal")]
    {
        for end in setup.greet(cluster, node, name, &hello()).await {
            let end = end.unwrap_err();
            assert_eq!(end.code(), Code::Unauthenticated, "{end}");
            let words = format!("names {name}, not n2.test.raft.internal");
            assert!(end.message().contains(&words), "{end}");
        }
    }
    // Nor is a greeting without a node.
    let nobody = wire::Hello { from: 0, ..hello() };
    for end in setup.greet("test", 3, "n3.test.raft.internal", &nobody).await {
        assert_eq!(end.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(setup.node.addresses(), before, "it has learned nothing from them");
    // The true one is.
    for end in setup.greet("test", 2, "n2.test.raft.internal", &hello()).await {
        end.unwrap();
    }
    assert_eq!(setup.node.addresses()[&id(2)].0, "elsewhere:2");
    setup.node.shutdown().await;
}

#[tokio::test]
async fn a_good_certificate_does_not_make_a_member() {
    let setup = Setup::start().await;
    let nine = identity_of("test", 9, &[1, 2, 3], 0).hello(id(1));
    for end in setup.greet("test", 9, "n9.test.raft.internal", &nine).await {
        let end = end.unwrap_err();
        assert_eq!(end.code(), Code::PermissionDenied, "{end}");
        assert!(end.message().contains("n9 is not one of the other members"), "{end}");
    }
    setup.node.shutdown().await;
}
