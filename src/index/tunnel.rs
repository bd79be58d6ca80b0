//! The way from one host's build to the index: each connection that the build makes on its own loopback device is a request to the
//! helper, and is served here as if it had come over a socket. It ends with the build.

use std::fmt::Write as _;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{AbortHandle, JoinSet};

use super::{Index, IndexError, serve_stream};
use crate::host::{CallReceiver, CallSender, Host, Reply};
use crate::op::{INDEX_ADDRESS, Op};
use crate::wire::frame::MAX_PAYLOAD;

/// Requests that wait for a connection, so that clients that open several at once need not queue for a round trip each.
const WAITING: usize = 4;
/// Connections of each of them; with all of them a helper has requests to spare.
const CONNECTIONS: usize = 12;

/// A way that is open. When it is dropped nothing of it is left.
pub struct Tunnel {
    door: u64,
    url: String,
    task: AbortHandle,
}

impl Index {
    /// Opens a way from `host`. What runs there finds it by the tunnel's door and url, and nobody else knows either.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn tunnel(&self, host: &Host) -> Result<Tunnel, IndexError> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| IndexError::Internal(error.to_string()))?;
        let (door, token) = random.split_at(8);
        let door = door.iter().fold(0, |door, byte| door << 8 | u64::from(*byte));
        let token = token.iter().fold(String::new(), |mut token, byte| {
            let _ = write!(token, "{byte:02x}");
            token
        });
        let (router, host) = (self.router(Some(&token)), host.clone());
        let task = tokio::spawn(async move {
            let mut waiting: JoinSet<()> = (0..WAITING).map(|_| carry(host.clone(), door, router.clone())).collect();
            while waiting.join_next().await.is_some() {}
        });
        Ok(Tunnel { door, url: format!("http://{INDEX_ADDRESS}/{token}"), task: task.abort_handle() })
    }
}

impl Tunnel {
    #[must_use]
    pub fn door(&self) -> u64 {
        self.door
    }

    /// The url as the command's arguments and variables are to hold it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes one connection after the other, until the door is closed.
async fn carry(host: Host, door: u64, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok(call) = host.start(Op::Door { door }).await else { return };
        let (sender, mut receiver) = call.split();
        // A client speaks first.
        match receiver.next().await {
            Ok(Reply::Output { bytes, .. }) => {
                connections.spawn(connection(bytes, sender, receiver, router.clone()));
            }
            Ok(Reply::Progress(_) | Reply::End | Reply::Answer(_)) => {}
            Err(_) => return,
        }
    }
}

/// Serves one connection to its end.
async fn connection(first: Vec<u8>, mut sender: CallSender, mut receiver: CallReceiver, router: Router) {
    let (near, far) = tokio::io::duplex(MAX_PAYLOAD);
    let (mut from_server, mut to_server) = tokio::io::split(near);
    let inward = async {
        let mut bytes = first;
        // A server that wants no more ends its side, which the client then sees.
        while to_server.write_all(&bytes).await.is_ok() {
            bytes = loop {
                match receiver.next().await {
                    Ok(Reply::Output { bytes, .. }) => break bytes,
                    Ok(Reply::Progress(_) | Reply::End) => {}
                    Ok(Reply::Answer(_)) | Err(_) => {
                        let _ = to_server.shutdown().await;
                        return;
                    }
                }
            };
        }
    };
    let outward = async {
        let mut buffer = vec![0; MAX_PAYLOAD];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if sender.send(&buffer[..count]).await.is_err() {
                return;
            }
        }
        let _ = sender.end().await;
    };
    tokio::join!(inward, outward, serve_stream(far, router));
}
