//! Whether the daemon takes requests: gRPC's standard health check, as any probe may ask it.

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::rpc::client::{Client, ClientError};

impl Client {
    /// Whether the daemon as a whole says that it serves; it does not while it starts or stops.
    pub async fn is_serving(&self) -> Result<bool, ClientError> {
        let mut health = HealthClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let response = health.check(HealthCheckRequest { service: String::new() }).await;
        Ok(self.answer(response)?.status() == ServingStatus::Serving)
    }
}
