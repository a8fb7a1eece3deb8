//! The leaderboard: three nodes and the balancer, over HTTP/1.1.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

use crate::load::{Client, Failure, Work};
use crate::servers::{Servers, free_addresses, listens};

/// Starts it; where the balancer listens.
pub async fn start(program: &Path, dir: &Path) -> Result<(Servers, SocketAddr), Failure> {
    let addresses = free_addresses(7)?;
    let (http, raft, listen) = (&addresses[..3], &addresses[3..6], addresses[6]);
    let list = |addresses: &[SocketAddr]| {
        let members = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}"));
        members.collect::<Vec<_>>().join(",")
    };
    let mut servers = Servers::none();
    for at in 0..3 {
        let data = dir.join(format!("node-{}", at + 1));
        let arguments = [
            "node".to_owned(),
            format!("--id={}", at + 1),
            format!("--data-dir={}", data.display()),
            format!("--http={}", http[at]),
            format!("--raft={}", raft[at]),
            format!("--peers={}", list(raft)),
            format!("--http-peers={}", list(http)),
        ];
        servers.start(&format!("node-{}", at + 1), program, &arguments, dir)?;
    }
    let nodes = http.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let arguments = ["balancer".into(), format!("--listen={listen}"), format!("--nodes={nodes}")];
    servers.start("balancer", program, &arguments, dir)?;
    listens(listen).await?;
    Ok((servers, listen))
}

/// One connection, one request at a time.
pub struct Connection {
    to: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(to: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { to, sender: connect(to).await? })
    }
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn(connection);
    Ok(sender)
}

impl Client for Connection {
    async fn ask(&mut self, work: Work, name: &str) -> Result<(), Failure> {
        if self.sender.is_closed() {
            self.sender = connect(self.to).await?;
        }
        let request = match work {
            Work::Write => {
                let body = format!("{{\"player\":\"{name}\",\"score\":1}}");
                Request::post("/add_vote")
                    .header("content-type", "application/json")
                    .body(Full::from(body))
            }
            Work::Read => {
                Request::get(format!("/player_rankings?player={name}")).body(Full::default())
            }
        };
        let mut request = request?;
        request.headers_mut().insert("host", "bench".parse()?);
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        if status == StatusCode::OK || work == Work::Read && status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(format!("answered with {status}").into())
    }
}
