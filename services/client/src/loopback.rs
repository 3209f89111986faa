//! Where a browser on this machine comes back at the end of a login (RFC 8252, 7.3): a port of the loopback, for one answer.
//!
//! Invariant: only a request for the path that was made for this login is listened to, so that no page which a browser has open
//! can put in a code of its own. What is sent is bounded in size and in time.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Most bytes of a request that are read.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// How long one request may take: the next one waits for it.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);
/// Longest code, in characters.
const MAX_CODE_CHARS: usize = 200;

const HEADERS: &str = "cache-control: no-store\r\nreferrer-policy: no-referrer\r\nx-content-type-options: nosniff\r\n\
                       content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n\
                       content-type: text/html; charset=utf-8\r\nconnection: close\r\n";

/// A port that waits for a browser.
#[derive(Debug)]
pub(crate) struct Loopback {
    listener: TcpListener,
    path: String,
    redirect_uri: String,
}

impl Loopback {
    /// Listens on a port of its own. `secret` makes the path one that nobody guesses.
    pub(crate) async fn bind(secret: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let path = format!("/{secret}");
        let redirect_uri = format!("http://127.0.0.1:{port}{path}");
        Ok(Self {
            listener,
            path,
            redirect_uri,
        })
    }

    /// The address to be sent back to.
    pub(crate) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Waits for the browser and returns the code that it brings.
    pub(crate) async fn code(&self) -> String {
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                // Out of file descriptors, say: another one may come.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if let Ok(Some(code)) = timeout(REQUEST_DEADLINE, self.answer(&mut stream)).await {
                return code;
            }
        }
    }

    /// Answers one request; the code, if it brings one.
    async fn answer(&self, stream: &mut TcpStream) -> Option<String> {
        let mut request = Vec::new();
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read_buf(&mut request).await.ok()?;
            if read == 0 || request.len() > MAX_REQUEST_BYTES {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&request);
        let code = code_of(text.lines().next().unwrap_or_default(), &self.path);
        let (status, body) = match code {
            Some(_) => ("200 OK", "<p>You are logged in. You can close this window.</p>"),
            None => ("404 Not Found", "<p>There is nothing here.</p>"),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\n{HEADERS}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        // The code counts, whether its answer is read or not.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        code
    }
}

/// The code in a request line, where it is for our path.
fn code_of(line: &str, path: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let code = target.strip_prefix(path)?.strip_prefix("?code=")?;
    let right =
        (1..=MAX_CODE_CHARS).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (method == "GET" && right).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_taken_from_a_request_for_our_path_only() {
        let line = |line: &str| code_of(line, "/s3cret");
        assert_eq!(line("GET /s3cret?code=ab12 HTTP/1.1"), Some("ab12".to_owned()));
        for other in [
            "",
            "GET",
            "GET / HTTP/1.1",
            "GET /?code=ab12 HTTP/1.1",
            "GET /s3cret HTTP/1.1",
            "GET /s3cretx?code=ab12 HTTP/1.1",
            "POST /s3cret?code=ab12 HTTP/1.1",
            "GET /s3cret?code= HTTP/1.1",
            "GET /s3cret?code=ab12&x=y HTTP/1.1",
            "GET /s3cret?code=../x HTTP/1.1",
        ] {
            assert_eq!(line(other), None, "{other}");
        }
        assert_eq!(
            line(&format!("GET /s3cret?code={} HTTP/1.1", "a".repeat(300))),
            None
        );
    }

    #[tokio::test]
    async fn port_goes_on_listening_until_the_code_comes() {
        let loopback = Loopback::bind("s3cret").await.unwrap();
        let address = loopback
            .redirect_uri()
            .trim_start_matches("http://")
            .trim_end_matches("/s3cret")
            .to_owned();
        let ask = async |target: &str| {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let asks = async {
            // One that says nothing and goes.
            drop(TcpStream::connect(&address).await.unwrap());
            assert!(ask("/?code=evil").await.starts_with("HTTP/1.1 404"));
            assert!(ask("/s3cret?code=good").await.starts_with("HTTP/1.1 200"));
        };
        let (code, ()) = tokio::join!(loopback.code(), asks);
        assert_eq!(code, "good");
    }
}
