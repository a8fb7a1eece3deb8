//! etcd: three members, over gRPC. Clients share 16 connections and ask all members in turn.

use std::net::SocketAddr;
use std::path::Path;

use tonic::transport::Channel;

use crate::load::{Client, Failure, Work};
use crate::servers::{Servers, free_addresses, listens};

mod api {
    #![allow(missing_docs)]
    tonic::include_proto!("etcdserverpb");
}

/// Clients share at most so many connections.
const CONNECTIONS: usize = 16;

/// Starts it; where its members listen.
pub async fn start(program: &Path, dir: &Path) -> Result<(Servers, Vec<SocketAddr>), Failure> {
    let addresses = free_addresses(6)?;
    let (clients, peers) = (&addresses[..3], &addresses[3..]);
    let members = peers.iter().enumerate().map(|(at, peer)| format!("m{at}=http://{peer}"));
    let members = members.collect::<Vec<_>>().join(",");
    let mut servers = Servers::none();
    for at in 0..3 {
        let data = dir.join(format!("etcd-{at}"));
        let (client, peer) = (clients[at], peers[at]);
        let arguments = [
            format!("--name=m{at}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={members}"),
            "--initial-cluster-state=new".to_owned(),
            "--quota-backend-bytes=8589934592".to_owned(),
        ];
        servers.start(&format!("etcd-{at}"), program, &arguments, dir)?;
    }
    for &client in clients {
        listens(client).await?;
    }
    Ok((servers, clients.to_vec()))
}

/// A client on a connection that it shares.
pub struct Connection {
    kv: api::kv_client::KvClient<Channel>,
}

/// So many clients.
pub async fn clients(members: &[SocketAddr], count: usize) -> Result<Vec<Connection>, Failure> {
    let mut channels = Vec::new();
    for number in 0..count.min(CONNECTIONS) {
        let member = members[number % members.len()];
        channels.push(Channel::from_shared(format!("http://{member}"))?.connect().await?);
    }
    let client = |number: usize| {
        let channel = channels[number % channels.len()].clone();
        Connection { kv: api::kv_client::KvClient::new(channel) }
    };
    Ok((0..count).map(client).collect())
}

impl Client for Connection {
    async fn ask(&mut self, work: Work, name: &str) -> Result<(), Failure> {
        let key = name.as_bytes().to_vec();
        match work {
            Work::Write => {
                let value = b"1234567890123456".to_vec();
                self.kv.put(api::PutRequest { key, value }).await?;
            }
            Work::Read => drop(self.kv.range(api::RangeRequest { key }).await?),
        }
        Ok(())
    }
}
