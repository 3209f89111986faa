//! The shape every service shares: a unary rpc takes its caller from the request, runs its handler and
//! answers.

/// Implements a service: first the unary methods as `module::method(Request) -> Response`, then the others as
/// they are.
macro_rules! rpcs {
    (
        $service:ident for $rpcs:ident {
            $($module:ident :: $method:ident ($request:ident) -> $response:ident;)+
        }
        $($other:tt)*
    ) => {
        #[tonic::async_trait]
        impl $service for $rpcs {
            $(
                async fn $method(
                    &self,
                    request: tonic::Request<proto::$request>,
                ) -> Result<tonic::Response<proto::$response>, tonic::Status> {
                    let call = self.0.call(request)?;
                    self.0.answer($module::$method(&self.0, call).await)
                }
            )+
            $($other)*
        }
    };
}
pub(crate) use rpcs;
