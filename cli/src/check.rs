//! `consent check`: asks CanTrain about one artifact and says the answer.

use crate::connect::{self, Call};
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::values::{CollectedAt, Position};
use clap::Args as ClapArgs;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::{Artifact, CanTrainRequest, CanTrainResponse, Decision, Reason};

/// Ask whether an artifact of an account may be used to train models
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The account under which the artifact was collected
    account: String,
    /// The artifact's id
    #[arg(long, value_name = "ID", default_value = "artifact-1")]
    artifact: String,
    /// The product in which it arose
    #[arg(long, default_value = "le_chat")]
    product: String,
    /// What it is
    #[arg(long, default_value = "input")]
    kind: String,
    /// When it was collected: an RFC 3339 instant, or `now`
    #[arg(long, value_name = "INSTANT", default_value = "now")]
    collected_at: CollectedAt,
    /// It was collected in an incognito session
    #[arg(long)]
    incognito: bool,
    /// Answer from this state or a newer one, as `consent set` printed it
    #[arg(long, value_name = "EPOCH:REVISION")]
    min_position: Option<Position>,
    /// Exit with 3 on a DENY
    #[arg(long)]
    exit_code: bool,
    /// Whom to ask: a sidecar, or an authority
    #[arg(long, value_name = "URL", default_value = connect::SIDECAR, env = "CONSENT_SIDECAR_ENDPOINT")]
    endpoint: String,
    #[command(flatten)]
    pub(crate) call: Call,
}

/// Asks, prints, and tells by the exit code if it was asked to.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let Args {
        account,
        artifact,
        product,
        kind,
        collected_at,
        incognito,
        min_position,
        exit_code,
        endpoint,
        call,
    } = args;
    let question = CanTrainRequest {
        account,
        artifact: Some(Artifact {
            id: artifact,
            product,
            kind,
            collected_at: Some(collected_at.to_proto()),
            incognito,
        }),
        min_position: min_position.map(|p| p.to_proto()),
    };
    let mut client = DecisionServiceClient::new(connect::connect(&endpoint).await?);
    let answer =
        client.can_train(call.request(question)).await.map_err(|s| Failure::refused(&s))?.into_inner();
    match call.output {
        Format::Text => output::line(&describe(&answer))?,
        Format::Json => output::line(&output::json("CanTrainResponse", &answer)?)?,
    }
    Ok(exit(&answer, exit_code))
}

// Anything but ALLOW, known or not, is a DENY: also what a newer server might say.
fn allows(answer: &CanTrainResponse) -> bool {
    answer.decision == i32::from(Decision::Allow)
}

fn exit(answer: &CanTrainResponse, tell: bool) -> Exit {
    if tell && !allows(answer) { Exit::Negative } else { Exit::Done }
}

fn describe(answer: &CanTrainResponse) -> String {
    let decision = if allows(answer) { "ALLOW" } else { "DENY" };
    let reason = match Reason::try_from(answer.reason) {
        Ok(reason) => reason.as_str_name().trim_start_matches("REASON_").to_owned(),
        Err(_) => format!("REASON_{}", answer.reason),
    };
    let mut notes = Vec::new();
    if let Some(position) = &answer.position {
        notes.push(format!("revision {}", position.revision));
    }
    if let Some(valid_for) = &answer.valid_for {
        let millis =
            valid_for.seconds.saturating_mul(1000).saturating_add(i64::from(valid_for.nanos) / 1_000_000);
        notes.push(format!("valid for {millis} ms"));
    }
    if !allows(answer) {
        notes.push(if answer.r#final { "final" } else { "may change" }.to_owned());
    }
    format!("{decision:<5}  {reason}  {}", notes.join(" · ")).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::pb;

    fn answer(decision: i32, reason: i32, last: bool) -> CanTrainResponse {
        let allow = decision == i32::from(Decision::Allow);
        CanTrainResponse {
            decision,
            reason,
            r#final: last,
            position: Some(pb::Position { epoch: vec![1; 16].into(), revision: 7 }),
            valid_for: allow.then_some(prost_types::Duration { seconds: 0, nanos: 49_999_999 }),
        }
    }

    #[test]
    fn an_answer_is_one_clear_line() {
        let allow = answer(Decision::Allow.into(), Reason::PlanDefaultIn.into(), false);
        // Rounded down: nobody may be told that an answer holds longer than it does.
        assert_eq!(describe(&allow), "ALLOW  PLAN_DEFAULT_IN  revision 7 · valid for 49 ms");
        let deny = answer(Decision::Deny.into(), Reason::AccountOptedOut.into(), true);
        assert_eq!(describe(&deny), "DENY   ACCOUNT_OPTED_OUT  revision 7 · final");
        let cold = CanTrainResponse { position: None, ..answer(2, Reason::NotReady.into(), false) };
        assert_eq!(describe(&cold), "DENY   NOT_READY  may change");
    }

    #[test]
    fn what_is_not_an_allow_is_a_deny() {
        for decision in [0, 2, 99] {
            let answer = answer(decision, 99, false);
            assert_eq!(describe(&answer), "DENY   REASON_99  revision 7 · may change");
            assert_eq!(exit(&answer, true), Exit::Negative);
            assert_eq!(exit(&answer, false), Exit::Done);
        }
        assert_eq!(exit(&answer(Decision::Allow.into(), 24, false), true), Exit::Done);
    }
}
