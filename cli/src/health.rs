//! `consent health`: the probe of a container or a unit, by `grpc.health.v1`.

use crate::connect::{self, Call};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use clap::Args as ClapArgs;
use serde_json::json;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Ask a server whether it serves: exit 0 if it does, 4 if it does not or nobody answers
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The server
    #[arg(long, value_name = "URL", default_value = connect::SIDECAR, env = "CONSENT_SIDECAR_ENDPOINT")]
    endpoint: String,
    /// Whose readiness to ask for; `liveness` asks whether the process answers at all
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    #[command(flatten)]
    pub(crate) call: Call,
}

/// Asks, prints, and tells by the exit code.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let Args { endpoint, service, call } = args;
    let mut client = HealthClient::new(connect::connect(&endpoint).await?);
    let request = call.request(HealthCheckRequest { service });
    let response = client.check(request).await.map_err(|s| Failure::refused(&s))?.into_inner();
    let (word, exit) = verdict(response.status);
    match call.output {
        Format::Text => output::line(word)?,
        Format::Json => output::line(&json!({ "status": word }).to_string())?,
    }
    Ok(exit)
}

fn verdict(status: i32) -> (&'static str, Exit) {
    match ServingStatus::try_from(status) {
        Ok(ServingStatus::Serving) => ("SERVING", Exit::Done),
        Ok(status @ (ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown)) => {
            (status.as_str_name(), Exit::Unavailable)
        }
        Err(_) => ("UNKNOWN", Exit::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_is_healthy() {
        assert_eq!(verdict(1), ("SERVING", Exit::Done));
        assert_eq!(verdict(2), ("NOT_SERVING", Exit::Unavailable));
        assert_eq!(verdict(0), ("UNKNOWN", Exit::Unavailable));
        assert_eq!(verdict(99), ("UNKNOWN", Exit::Unavailable));
    }
}
