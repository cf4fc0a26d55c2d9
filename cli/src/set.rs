//! `consent set`: records a choice, a plan, a membership or a policy, and says how far it has come.
//!
//! Every write has a request_id, made up if none is given, and a failure that leaves the outcome open names it: the
//! same command under the same id is the retry that cannot become a second write.

use crate::connect::{self, Call};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::values::Position;
use clap::{ArgGroup, Args as ClapArgs, Subcommand, ValueEnum};
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::{self, Receipt, WriteContext, party};
use std::path::PathBuf;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

/// Record a choice, a plan, a membership or a policy
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// Wait until no node anywhere answers from an older state
    #[arg(long, global = true)]
    wait: bool,
    /// Who asks for it: kept as evidence
    #[arg(long, global = true, value_name = "ID", default_value = "operator", env = "CONSENT_ACTOR")]
    actor: String,
    /// Through what it came: kept as evidence
    #[arg(long, global = true, value_name = "CHANNEL", default_value = "operator")]
    channel: Channel,
    /// Which notice the person saw: kept as evidence
    #[arg(long, global = true, value_name = "ID", default_value = "")]
    notice: String,
    /// The revision at which the party was last seen; needed to opt in over a standing opt-out
    #[arg(long, global = true, value_name = "REVISION")]
    expected_revision: Option<u64>,
    /// The name of this write; give it again to retry
    #[arg(long, global = true, value_name = "UUID")]
    request_id: Option<Uuid>,
    /// The authority
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = connect::AUTHORITY,
        env = "CONSENT_AUTHORITY_ENDPOINT"
    )]
    endpoint: String,
    #[command(flatten)]
    pub(crate) call: Call,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The explicit choice of an account, or of an organization, for a product
    Consent {
        /// Whose choice it is
        party: String,
        /// The product
        product: String,
        /// The choice
        choice: Choice,
        /// PARTY is an organization
        #[arg(long)]
        organization: bool,
    },
    /// The plan of an account, or of an organization, for a product
    #[command(group = ArgGroup::new("which").required(true).args(["plan", "none"]))]
    Plan {
        /// Whose plan it is
        party: String,
        /// The product
        product: String,
        /// The plan
        plan: Option<String>,
        /// No plan
        #[arg(long)]
        none: bool,
        /// PARTY is an organization
        #[arg(long)]
        organization: bool,
    },
    /// The organization that an account belongs to
    #[command(group = ArgGroup::new("which").required(true).args(["organization", "none"]))]
    Organization {
        /// The account; one never mentioned before is announced by this
        account: String,
        /// The organization; one never mentioned before is created
        organization: Option<String>,
        /// No organization
        #[arg(long)]
        none: bool,
    },
    /// The rule book, from a policy file
    Policy {
        /// The policy file
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    In,
    Out,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Channel {
    AdminConsole,
    Ios,
    Android,
    Api,
    Support,
    Service,
    Operator,
}

/// Writes, prints the receipt.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let request_id = args.request_id.unwrap_or_else(Uuid::new_v4);
    let context = WriteContext {
        request_id: request_id.to_string(),
        actor: args.actor,
        channel: pb::Channel::from(args.channel).into(),
        notice: args.notice,
        wait_effective: args.wait,
    };
    let channel = connect::connect(&args.endpoint).await?;
    let explain = |status: Status| explain(&status, request_id);
    let mut consents = ConsentServiceClient::new(channel.clone());
    let (receipt, json) = match args.what {
        What::Consent { party, product, choice, organization } => {
            let message = pb::SetConsentRequest {
                context: Some(context),
                party: Some(named(party, organization)),
                product,
                choice: pb::Choice::from(choice).into(),
                expected_revision: args.expected_revision,
            };
            let response =
                consents.set_consent(args.call.request(message)).await.map_err(explain)?.into_inner();
            let json = output::json("SetConsentResponse", &response)?;
            (response.receipt, json)
        }
        What::Plan { party, product, plan, none: _, organization } => {
            let message = pb::SetPlanRequest {
                context: Some(context),
                party: Some(named(party, organization)),
                product,
                plan: plan.unwrap_or_default(),
                expected_revision: args.expected_revision,
            };
            let response = consents.set_plan(args.call.request(message)).await.map_err(explain)?.into_inner();
            let json = output::json("SetPlanResponse", &response)?;
            (response.receipt, json)
        }
        What::Organization { account, organization, none: _ } => {
            let message = pb::PutAccountRequest {
                context: Some(context),
                account,
                organization: organization.unwrap_or_default(),
                expected_revision: args.expected_revision,
            };
            let response =
                consents.put_account(args.call.request(message)).await.map_err(explain)?.into_inner();
            let json = output::json("PutAccountResponse", &response)?;
            (response.receipt, json)
        }
        What::Policy { file } => {
            let toml = std::fs::read_to_string(&file)
                .map_err(|e| Failure::usage(format!("{} cannot be read: {e}", file.display())))?;
            let message = pb::PublishPolicyRequest { context: Some(context), toml };
            let response = PolicyServiceClient::new(channel)
                .publish_policy(args.call.request(message))
                .await
                .map_err(explain)?
                .into_inner();
            for warning in &response.warnings {
                output::note(&format!("warning: {}  {}  {}", warning.code, warning.key, warning.message));
            }
            let json = output::json("PublishPolicyResponse", &response)?;
            (response.receipt, json)
        }
    };
    let receipt =
        receipt.ok_or_else(|| Failure::internal("the authority sent no receipt").next(retry(request_id)))?;
    match args.call.output {
        Format::Text => output::line(&describe(&receipt))?,
        Format::Json => output::line(&json)?,
    }
    Ok(Exit::Done)
}

fn named(id: String, organization: bool) -> pb::Party {
    let party = if organization { party::Party::Organization(id) } else { party::Party::Account(id) };
    pb::Party { party: Some(party) }
}

fn describe(receipt: &Receipt) -> String {
    let confirmation = match pb::Confirmation::try_from(receipt.confirmation) {
        Ok(pb::Confirmation::Effective) => "EFFECTIVE",
        // What a newer authority might say promises no more than this to us.
        Ok(pb::Confirmation::Recorded | pb::Confirmation::Unspecified) | Err(_) => "RECORDED",
    };
    let mut notes = Vec::new();
    if let Some(position) = &receipt.position {
        notes.push(format!("revision {}", position.revision));
        if let Some(position) = Position::from_proto(position) {
            notes.push(format!("position {position}"));
        }
    }
    if !receipt.changed {
        notes.push("it stood so already".to_owned());
    }
    format!("{confirmation}  {}", notes.join(" · ")).trim_end().to_owned()
}

// What the person should do about a refused write depends on what the authority knows of it.
fn explain(status: &Status, request_id: Uuid) -> Failure {
    let failure = Failure::refused(status);
    if failure.has_reason("REVISION_CONFLICT") {
        // The answer names the present revision. Who takes it from there has not seen what it stands for.
        return failure.next("read the party again (ConsentService.GetAccount), then decide again");
    }
    let actual = status.get_details_error_info().and_then(|info| info.metadata.get("actual").cloned());
    match actual {
        Some(actual) => failure.next(format!("the same command with --expected-revision {actual}")),
        None if excludes_a_write(status.code()) && !failure.has_reason("LOST") => failure,
        None => failure.next(retry(request_id)),
    }
}

fn retry(request_id: Uuid) -> String {
    format!("the same command with --request-id {request_id}")
}

// What only a server says that has written nothing. A connection that breaks is any of the others.
fn excludes_a_write(code: Code) -> bool {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}

impl From<Choice> for pb::Choice {
    fn from(choice: Choice) -> pb::Choice {
        match choice {
            Choice::In => pb::Choice::In,
            Choice::Out => pb::Choice::Out,
        }
    }
}

impl From<Channel> for pb::Channel {
    fn from(channel: Channel) -> pb::Channel {
        match channel {
            Channel::AdminConsole => pb::Channel::AdminConsole,
            Channel::Ios => pb::Channel::Ios,
            Channel::Android => pb::Channel::Android,
            Channel::Api => pb::Channel::Api,
            Channel::Support => pb::Channel::Support,
            Channel::Service => pb::Channel::Service,
            Channel::Operator => pb::Channel::Operator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::status::status;
    use consent_core::refusal::Refusal;
    use consent_core::words::Revision;

    fn receipt(confirmation: pb::Confirmation, changed: bool) -> Receipt {
        Receipt {
            position: Some(pb::Position { epoch: vec![0xab; 16].into(), revision: 9 }),
            chain: vec![0; 32].into(),
            recorded_at: None,
            confirmation: confirmation.into(),
            changed,
        }
    }

    #[test]
    fn a_receipt_says_how_far_the_write_has_come_and_where_to_read_it() {
        assert_eq!(
            describe(&receipt(pb::Confirmation::Effective, true)),
            "EFFECTIVE  revision 9 · position abababababababababababababababab:9"
        );
        assert_eq!(
            describe(&receipt(pb::Confirmation::Recorded, false)),
            "RECORDED  revision 9 · position abababababababababababababababab:9 · it stood so already"
        );
        let unknown = Receipt { confirmation: 99, ..receipt(pb::Confirmation::Recorded, true) };
        assert!(describe(&unknown).starts_with("RECORDED"), "nothing unknown is taken for EFFECTIVE");
    }

    #[test]
    fn a_refused_write_says_how_to_go_on() {
        let id = Uuid::nil();
        let line =
            |status: &Status| explain(status, id).render(Format::Text).lines().nth(1).map(str::to_owned);
        let next = |refusal| line(&status(refusal));
        let actual = Revision::new(7).unwrap();
        let with_revision = Some("next: the same command with --expected-revision 7".to_owned());
        let with_id = Some(format!("next: the same command with --request-id {id}"));
        assert_eq!(next(Refusal::ExpectedRevisionMissing { actual }), with_revision);
        let conflict = next(Refusal::Conflict { expected: Revision::ZERO, actual }).expect("a way on");
        assert!(conflict.contains("read the party again"), "{conflict}");
        assert!(!conflict.contains("--expected-revision"), "nobody has seen it yet: {conflict}");
        for open in [Refusal::OutcomeUnknown, Refusal::Lost, Refusal::DeadlineExceeded, Refusal::Internal] {
            assert_eq!(next(open), with_id);
        }
        for broken in [Status::unknown("reset"), Status::internal("reset"), Status::cancelled("late")] {
            assert_eq!(line(&broken), with_id, "{broken:?}");
        }
        for closed in [Refusal::AccountErased, Refusal::RequestIdReused, Refusal::NotFound { what: "it" }] {
            assert_eq!(next(closed), None);
        }
    }
}
