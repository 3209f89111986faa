//! A plain HTTP/1.1 client for loopback: one request, one connection, no redirects, cookies by hand.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: String,
}

impl Answer {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A browser without a window: it keeps cookies, and follows what it is told to.
#[derive(Debug, Clone, Default)]
pub struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Opens an address.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn get(&mut self, url: &str) -> Answer {
        self.send("GET", url, None).await
    }

    /// Sends a form.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn post(&mut self, url: &str, form: &str) -> Answer {
        self.send("POST", url, Some(("application/x-www-form-urlencoded", form)))
            .await
    }

    async fn send(&mut self, method: &str, url: &str, body: Option<(&str, &str)>) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookies = if cookies.is_empty() {
            String::new()
        } else {
            format!("cookie: {}\r\n", cookies.join("; "))
        };
        let answer = request(method, url, &cookies, body).await;
        for (name, value) in &answer.headers {
            if name == "set-cookie"
                && let Some((name, value)) = value.split(';').next().unwrap_or_default().split_once('=')
            {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }
}

/// Sends a request and reads its answer. `headers` are whole lines.
///
/// # Panics
/// When nobody answers.
pub async fn request(method: &str, url: &str, headers: &str, body: Option<(&str, &str)>) -> Answer {
    let sent = timeout(DEADLINE, try_request(method, url, headers, body)).await;
    let sent = sent.unwrap_or_else(|_| panic!("{method} {url}: no answer in time"));
    sent.unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

async fn try_request(
    method: &str,
    url: &str,
    headers: &str,
    body: Option<(&str, &str)>,
) -> std::io::Result<Answer> {
    let rest = url
        .strip_prefix("http://")
        .unwrap_or_else(|| panic!("{url} is not http://"));
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let mut stream = TcpStream::connect(host).await?;
    let (kind, content) = body.unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
    if body.is_some() {
        head += &format!("content-type: {kind}\r\ncontent-length: {}\r\n", content.len());
    }
    stream
        .write_all(format!("{head}\r\n{content}").as_bytes())
        .await?;
    let mut bytes = Vec::new();
    let split = loop {
        if let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break split;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::Error::other("the answer has no end of its head"));
        }
    };
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    // Not everybody closes the connection when asked to.
    let length = headers.iter().find(|(name, _)| name == "content-length");
    match length.and_then(|(_, length)| length.parse::<usize>().ok()) {
        Some(length) => while bytes.len() < split + 4 + length && stream.read_buf(&mut bytes).await? > 0 {},
        None => drop(stream.read_to_end(&mut bytes).await?),
    }
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value.contains("chunked"));
    let content = &bytes[split + 4..];
    let content = if chunked {
        dechunk(content)
    } else {
        content.to_vec()
    };
    Ok(Answer {
        status: status.unwrap_or(0),
        headers,
        body: String::from_utf8_lossy(&content).into_owned(),
    })
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..end]);
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let from = end + 2;
        if size == 0 || rest.len() < from + size + 2 {
            break;
        }
        content.extend_from_slice(&rest[from..from + size]);
        rest = &rest[from + size + 2..];
    }
    content
}
