//! HTTP towards providers: no redirects, verified TLS, bounded in time and size.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use openidconnect::AsyncHttpClient;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use thiserror::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: key sets and tokens are a few KiB.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Why there can be no client.
#[derive(Debug, Error)]
pub enum HttpClientError {
    /// The file has no certificate.
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    /// A certificate cannot be used.
    #[error("a certificate in it cannot be used: {0}")]
    Certificate(String),
    /// The client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

/// A request that was not answered.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No answer came, or none that could be read.
    #[error("{0}")]
    Failed(String),
    /// The answer is too large to be one.
    #[error("the answer is too large")]
    TooLarge,
}

/// An HTTP client for providers.
#[derive(Clone)]
pub struct HttpClient(reqwest::Client);

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client that trusts the operating system's authorities, and those of `authorities` (PEM) as well.
    ///
    /// # Errors
    /// Where `authorities` has no certificate that can be used.
    pub fn new(authorities: Option<&[u8]>) -> Result<Self, HttpClientError> {
        let mut roots = rustls::RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if let Some(pem) = authorities {
            let mut count = 0;
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| HttpClientError::Certificate(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| HttpClientError::Certificate(error.to_string()))?;
                count += 1;
            }
            if count == 0 {
                return Err(HttpClientError::NoCertificate);
            }
        }
        let made = |error: &dyn fmt::Display| HttpClientError::Client(error.to_string());
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| made(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // A provider that redirects could send the client's secret anywhere.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .no_proxy()
            .user_agent(concat!("pgmoor/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| made(&error))?;
        Ok(Self(client))
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpError> {
        let failed = |error: reqwest::Error| HttpError::Failed(chain(&error));
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut answer = self.0.execute(request).await.map_err(failed)?;
        let mut response = Response::new(Vec::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if response.body().len() + chunk.len() > MAX_BODY_BYTES {
                return Err(HttpError::TooLarge);
            }
            response.body_mut().extend_from_slice(&chunk);
        }
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for HttpClient {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// An error with its causes, without the address: a query may hold a code.
fn chain(error: &reqwest::Error) -> String {
    use std::error::Error as _;

    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the request failed"
    };
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(kind.to_owned(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use harness::tls::{Authority, Identity};
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn redirect_of_a_provider_is_its_answer_and_is_not_followed() {
        let provider = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let elsewhere = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = |listener: &TcpListener| format!("http://{}/token", listener.local_addr().unwrap());
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            url(&elsewhere)
        );
        let redirects = async {
            let (mut stream, _) = provider.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        let request = Request::post(url(&provider))
            .body(b"client_secret=x".to_vec())
            .unwrap();
        let client = HttpClient::new(None).unwrap();
        let answered = tokio::select! {
            answered = client.send(request) => answered,
            () = redirects => panic!("it goes on"),
            _ = elsewhere.accept() => panic!("the secret goes elsewhere"),
        };
        assert_eq!(answered.unwrap().status(), 307);
    }

    /// What a client that trusts `authorities` as well hears from a provider that shows this certificate as 127.0.0.1.
    async fn asks(authorities: Option<&str>, shown: &Identity) -> Result<Response<Vec<u8>>, HttpError> {
        let certificates = CertificateDer::pem_slice_iter(shown.certificate.as_bytes());
        let certificates: Vec<_> = certificates.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}/token", listener.local_addr().unwrap());
        let serves = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not believe it goes away in the middle.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                let _ = stream.write_all(answer).await;
            }
        };
        let request = Request::post(url).body(b"client_secret=x".to_vec()).unwrap();
        let client = HttpClient::new(authorities.map(str::as_bytes)).unwrap();
        tokio::select! {
            answered = client.send(request) => answered,
            () = serves => unreachable!("it serves without end"),
        }
    }

    #[tokio::test]
    async fn provider_is_believed_under_its_own_name_by_a_trusted_authority_only() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let answered = asks(Some(ours.pem()), &ours.server()).await.unwrap();
        assert_eq!(answered.status(), 200);
        let elsewhere = ours.issue("idp.example.com", &["idp.example.com"]);
        for (authorities, shown) in [
            (None, &ours.server()),
            (Some(ours.pem()), &theirs.server()),
            (Some(ours.pem()), &elsewhere),
        ] {
            let refused = asks(authorities, shown).await.unwrap_err().to_string();
            assert!(refused.contains("certificate"), "{refused}");
        }
    }
}
