//! One connection at a time: HTTP over any stream of bytes, with limits on what a client may send and how long it may take for it.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take to say what it wants, and how long a connection may be idle.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest head of a request.
const HEAD: usize = 64 * 1024;
/// Connections at one time; more wait.
const CONNECTIONS: usize = 256;

/// Serves one connection to its end.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, router: Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD);
    // A client that goes away is the usual end.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

/// Serves every connection that a listener accepts, until it is dropped.
pub async fn accept(listener: TcpListener, router: Router) {
    let gate = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&gate).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let router = router.clone();
                tokio::spawn(async move {
                    serve(stream, router).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, as a rule: some will be free in a moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
