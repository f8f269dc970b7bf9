//! Asking over HTTP, byte by byte, so that nothing hides what goes over the line.

use std::io;
use std::net::SocketAddr;

use sds_sync::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request with a value of the header `Authorization`, if there is one.
pub(crate) fn request(
    (method, path): (&str, &str),
    authorization: Option<&str>,
    body: &str,
) -> String {
    let authorization =
        authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    format!(
        "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{authorization}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Such a value for a token.
pub(crate) fn bearer(token: &Token) -> String {
    format!("Bearer {}", token.reveal())
}

/// Sends `request` as it is, and reads until the other side ends the connection: status, head and body.
pub(crate) async fn exchange(
    address: SocketAddr,
    request: &[u8],
) -> io::Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, head.to_owned(), body.to_owned()))
}
