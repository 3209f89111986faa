//! The tower layer that turns a call's metadata into a [`Caller`], or into a refusal.
//!
//! Invariant: a request reaches a handler only with what its method's options ask for. Whatever the metadata
//! holds, the work before the token is known to be short is constant.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use domain::access::{Caller, Permission, allows};
use http::{Extensions, Request, Response};
use rpc::policy::PolicyTable;
use tonic::Status;
use tower::{Layer, Service};

use crate::bearer::Bearer;
use crate::error::AuthError;
use crate::rules::{Rule, Rules, UnknownMethodPermission};
use crate::seen::Seen;
use crate::status::status;
use crate::verifier::TokenVerifier;

/// Whether the connection a request came over, as its extensions describe it, belongs to a worker.
pub type WorkerCheck = Arc<dyn Fn(&Extensions) -> bool + Send + Sync>;

/// Authenticates every call and checks the permission its method states.
///
/// A handler behind it finds `Arc<Caller>`, [`Bearer`] and the [`Permission`] that was asked for in the request's extensions,
/// unless its method is anonymous or for workers.
#[derive(Clone)]
pub struct AuthLayer {
    rules: Arc<Rules>,
    verifier: Arc<TokenVerifier>,
    is_worker: WorkerCheck,
}

impl AuthLayer {
    /// A layer for the methods of the table. Methods for workers are refused until
    /// [`AuthLayer::with_workers`].
    ///
    /// # Errors
    /// Where a method names a permission that does not exist.
    pub fn new(
        policies: &PolicyTable,
        verifier: Arc<TokenVerifier>,
    ) -> Result<Self, UnknownMethodPermission> {
        Ok(Self {
            rules: Arc::new(Rules::read(policies)?),
            verifier,
            is_worker: Arc::new(|_| false),
        })
    }

    /// Lets those call the methods for workers whom `is_worker` recognises, by the certificate of their
    /// connection.
    #[must_use]
    pub fn with_workers(self, is_worker: WorkerCheck) -> Self {
        Self { is_worker, ..self }
    }
}

impl std::fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated {
            inner,
            gate: self.clone(),
        }
    }
}

/// A service behind an [`AuthLayer`].
#[derive(Debug, Clone)]
pub struct Authenticated<S> {
    inner: S,
    gate: AuthLayer,
}

impl<S, B, R> Service<Request<B>> for Authenticated<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The clone that was polled to readiness takes the call, its successor is polled next.
        let successor = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, successor);
        let gate = self.gate.clone();
        Box::pin(async move {
            match gate.admit(&mut request).await {
                Ok(()) => inner.call(request).await,
                Err(refusal) => Ok(refusal.into_http()),
            }
        })
    }
}

impl AuthLayer {
    async fn admit<B>(&self, request: &mut Request<B>) -> Result<(), Status> {
        let bearer = Bearer::take(request.headers_mut());
        let Some(rule) = self.rules.get(request.uri().path()) else {
            return Err(Status::unimplemented("there is no such method"));
        };
        match rule {
            Rule::Anonymous => Ok(()),
            Rule::Worker if (self.is_worker)(request.extensions()) => Ok(()),
            Rule::Worker => Err(status(&AuthError::PermissionMissing {
                permission: Permission::SlotsLease,
            })),
            Rule::Requires(permission) => {
                let seen = request.extensions().get::<Seen>().cloned();
                let admitted = self.authenticate(bearer, permission, seen).await;
                let (caller, bearer) = admitted.map_err(|error| status(&error))?;
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(bearer);
                request.extensions_mut().insert(permission);
                Ok(())
            }
        }
    }

    async fn authenticate(
        &self,
        bearer: Result<Bearer, AuthError>,
        permission: Permission,
        seen: Option<Seen>,
    ) -> Result<(Arc<Caller>, Bearer), AuthError> {
        let bearer = bearer?;
        let caller = self.verifier.verify(bearer.expose()).await?;
        if let Some(seen) = seen {
            seen.set(&caller);
        }
        if !allows(&caller, permission) {
            return Err(AuthError::PermissionMissing { permission });
        }
        Ok((caller, bearer))
    }
}
