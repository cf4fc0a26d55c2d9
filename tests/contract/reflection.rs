//! What a client learns that has no files of ours: each server lists what it serves, and serves what it lists.

use crate::descriptor::files;
use crate::raw;
use crate::servers::Servers;
use std::collections::BTreeSet;
use tonic::Code;
use tonic::transport::Channel;

/// What the authority serves, beside health and reflection.
pub(crate) const AUTHORITY: [&str; 4] = ["ConsentService", "DecisionService", "PolicyService", "SyncService"];
/// What a sidecar serves, beside health and reflection.
pub(crate) const SIDECAR: [&str; 2] = ["DecisionService", "SidecarService"];

// The two versions differ in nothing but their package.
macro_rules! listed {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($channel.clone());
        let mut answers = client
            .server_reflection_info(tokio_stream::once(question))
            .await
            .expect(stringify!($version))
            .into_inner();
        let answer = answers.message().await.expect("a stream").expect("an answer");
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("no list of services")
        };
        list.service.into_iter().map(|service| service.name).collect::<BTreeSet<String>>()
    }};
}

async fn lists_and_serves(server: &Channel, own: &[&str]) {
    for listed in [listed!(v1, server), listed!(v1alpha, server)] {
        let ours: Vec<&str> = listed.iter().filter_map(|name| name.strip_prefix("consent.v1.")).collect();
        assert_eq!(ours, own);
        assert!(listed.contains("grpc.health.v1.Health"), "{listed:?}");
    }
    for file in files() {
        for service in file.service.iter().filter(|service| own.contains(&service.name())) {
            for method in &service.method {
                let path = format!("{}/{}", service.name(), method.name());
                // An empty message: refused or answered, but known.
                if let Err(status) = raw::call(server, &path, Vec::new()).await {
                    assert_ne!(status.code(), Code::Unimplemented, "{path}: {status:?}");
                }
            }
        }
    }
    let status =
        raw::call(server, "DecisionService/NoSuchMethod", Vec::new()).await.expect_err("no such method");
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn each_server_lists_what_it_serves_and_serves_what_it_lists() {
    let servers = Servers::start().await;
    lists_and_serves(&servers.authority, &AUTHORITY).await;
    lists_and_serves(&servers.sidecar, &SIDECAR).await;
}
