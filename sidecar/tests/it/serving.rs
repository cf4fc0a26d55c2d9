//! Where it listens, and what it refuses to start with.

use crate::ledger::Ledger;
use crate::node::{Node, config, question};
use crate::script::{Authority, long};
use consent::pb::Reason;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent_sidecar::{Peers, Socket, StartError};
use rustix::process::getuid;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use tokio_stream::StreamExt;
use tonic::Request;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

#[tokio::test]
async fn it_answers_on_a_unix_socket_for_its_group_alone() {
    let (mut authority, ledger) = (Authority::start().await, Ledger::new());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("consent.sock");
    let socket = Some(Socket { path: path.clone(), peers: Peers::Group });
    let config = consent_sidecar::Config { socket, ..config(&[&authority]) };
    let sidecar = consent_sidecar::start(config.clone()).await.expect("it starts");
    let mode = std::fs::metadata(&path).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let _session = authority.bring_to_life(&ledger, long()).await;

    let url = format!("unix://{}", path.display());
    let channel = Endpoint::try_from(url).expect("an address").connect().await.expect("it listens");
    let decisions = DecisionServiceClient::new(channel);
    let ask =
        || async { decisions.clone().can_train(question("ada")).await.expect("an answer").into_inner() };
    let is_allow = |answer: &consent::pb::CanTrainResponse| answer.reason() == Reason::PlanDefaultIn;
    crate::script::until("an ALLOW", ask, is_allow).await;

    let taken = consent_sidecar::start(config).await;
    assert!(matches!(taken, Err(StartError::Listen { .. })), "{taken:?}");
    drop(decisions);
    sidecar.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn it_answers_the_processes_of_the_listed_users_alone() {
    let authority = Authority::start().await;
    let own = getuid().as_raw();
    for (users, is_listed) in [([own, own + 1], true), ([own + 1, own + 2], false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/consent.sock");
        let socket = Some(Socket { path: path.clone(), peers: Peers::Users(users.into()) });
        let node = Node::start_with(consent_sidecar::Config { socket, ..config(&[&authority]) }).await;
        let channel = Endpoint::try_from(format!("unix://{}", path.display())).unwrap().connect_lazy();
        let answer = DecisionServiceClient::new(channel).can_train(question("ada")).await;
        assert_eq!(answer.is_ok(), is_listed, "{answer:?}");
        // Whoever is refused there is answered over TCP still.
        node.denies().await;
    }
}

#[tokio::test]
async fn it_does_not_start_on_what_cannot_be_right() {
    let authority = Authority::start().await;
    let everywhere =
        consent_sidecar::Config { listen: "0.0.0.0:0".parse().unwrap(), ..config(&[&authority]) };
    let refused = consent_sidecar::start(everywhere).await;
    assert!(matches!(refused, Err(StartError::NotLoopback(_))), "{refused:?}");
    let refused = consent_sidecar::start(config(&[])).await;
    assert!(matches!(refused, Err(StartError::NoAuthority)), "{refused:?}");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    let socket = Some(Socket { path: directory.path().join("consent.sock"), peers: Peers::Group });
    let open = consent_sidecar::Config { socket, ..config(&[&authority]) };
    let refused = consent_sidecar::start(open).await.expect_err("anybody may write there").to_string();
    assert!(refused.contains("anybody may write to its directory"), "{refused}");
    let nowhere = consent_sidecar::Config { authorities: vec!["not an address".to_owned()], ..config(&[]) };
    let refused = consent_sidecar::start(nowhere).await;
    assert!(matches!(refused, Err(StartError::BadAuthority { .. })), "{refused:?}");
}

#[tokio::test]
async fn reflection_lists_what_it_serves_and_nothing_else() {
    let authority = Authority::start().await;
    let node = Node::start(&[&authority]).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = Request::new(tokio_stream::once(request));
    let responses = ServerReflectionClient::new(node.channel.clone()).server_reflection_info(requests).await;
    let response =
        responses.expect("it answers").into_inner().next().await.expect("one answer").expect("no error");
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) =
        response.message_response
    else {
        panic!("no list")
    };
    let mut names: Vec<String> = service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "consent.v1.DecisionService",
            "consent.v1.SidecarService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ]
    );
}
