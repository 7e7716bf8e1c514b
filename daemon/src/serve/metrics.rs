//! Prometheus metrics on a loopback port, for those who ask for it.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;

/// A request may take this long and be this large.
const REQUEST_SECONDS_MAX: u64 = 2;
const REQUEST_BYTES_MAX: usize = 4096;

/// Answers `GET /metrics` on 127.0.0.1 with the newest text, one client at a time.
///
/// # Errors
/// If the port is taken.
pub async fn listen(port: u16, text: Receiver<String>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .with_context(|| format!("metrics_port {port} cannot be listened on"))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((mut stream, _)) => {
                    let body = text.borrow().clone();
                    let answered = tokio::time::timeout(
                        Duration::from_secs(REQUEST_SECONDS_MAX),
                        answer(&mut stream, &body),
                    );
                    if let Ok(Err(error)) = answered.await {
                        log::debug!("a metrics request failed: {error}");
                    }
                }
                Err(error) => {
                    log::warn!("the metrics port fails: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(stream: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 512];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 || request.len() + count > REQUEST_BYTES_MAX {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..count]);
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", body)
    } else {
        ("404 Not Found", "try /metrics\n")
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
