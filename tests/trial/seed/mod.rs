//! The sixteen rows of the seed, as one table, played through a real authority and a real sidecar on both stores.
//!
//! Each row is expanded over its plans, kinds, channels and holders of the plan, with accounts of its own, and each
//! question asks for the state that the last write returned. "After" and "since" are rule.md section 5's: the next
//! whole second plus the guard; an artifact collected one millisecond earlier is asked about too where the seed
//! speaks of "before". All cases go through their stages together, so that one second is waited for once.

mod table;

use crate::clients::{self, Answered, Authority, ID_MARK, Node};
use crate::cluster::{Cluster, StoreKind, Terms, check_logs};
use crate::tally::Tally;
use anyhow::Context;
use consent::pb::{Choice, Position, Receipt, SetConsentRequest, SidecarState};
use std::collections::HashMap;
use table::{AI_STUDIO, Case, Collected, Holder, LE_CHAT, ROWS, Row, Stage, Step, Verdict};

/// Plays the table on both stores.
pub(crate) async fn run(tally: &mut Tally) -> anyhow::Result<()> {
    let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
    tally.check(numbers == Vec::from_iter(1..=16), "the table has the rows 1 to 16, each once");
    for kind in StoreKind::ALL {
        let cluster = Cluster::live(kind, Terms::SHORT).await?;
        // The last row takes the lease away from the whole node, so it is played alone.
        let (together, alone) = ROWS.split_at(15);
        let mut played = play(&cluster, together).await?;
        played.extend(play(&cluster, alone).await?);
        for (row, answers) in &played {
            for wrong in answers.iter().filter_map(|answer| answer.wrong.as_ref()).take(3) {
                println!("        {wrong}");
            }
            let right = answers.iter().filter(|answer| answer.wrong.is_none()).count();
            let (asked, cases) = (answers.len(), row.cases().len());
            let what =
                format!("{kind:8} row {:2}: {} ({cases} cases, {asked} answers)", row.number, row.says);
            tally.check(right == asked && asked >= cases, what);
        }
        tally.check(
            played.len() == 16,
            format_args!("{kind:8} no row is missing: {} of 16 played", played.len()),
        );
        check_logs(tally, &cluster);
    }
    Ok(())
}

struct Answer {
    wrong: Option<String>,
}

/// Where a case stands.
struct Playing {
    row: usize,
    case: Case,
    stages: Vec<Stage>,
    account: String,
    organization: String,
    last: Option<Receipt>,
    collected_at: i64,
    began: i64,
    answers: Vec<Answer>,
}

async fn play<'a>(cluster: &Cluster, rows: &'a [Row]) -> anyhow::Result<Vec<(&'a Row, Vec<Answer>)>> {
    let mut table = Table {
        cluster,
        authority: cluster.authority().await?,
        node: cluster.node().await?,
        guard_ms: clients::guard_ms()?,
        revisions: HashMap::new(),
        newest: None,
    };
    let mut playing = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        for (i, case) in row.cases().into_iter().enumerate() {
            playing.push(Playing {
                row: index,
                stages: (row.play)(&case),
                case,
                account: format!("{ID_MARK}row{}-person{i}", row.number),
                organization: format!("{ID_MARK}row{}-company{i}", row.number),
                last: None,
                collected_at: 0,
                began: consent::clock::wall().millis(),
                answers: Vec::new(),
            });
        }
    }
    let stages = playing.iter().map(|case| case.stages.len()).max().unwrap_or(0);
    for stage in 0..stages {
        for case in &mut playing {
            for step in case.stages.get(stage).cloned().unwrap_or_default() {
                table.step(case, step).await.with_context(|| format!("{:?} of {:?}", step, case.case))?;
            }
        }
        table.next_second().await?;
    }
    let mut answers: Vec<(&Row, Vec<Answer>)> = rows.iter().map(|row| (row, Vec::new())).collect();
    for case in playing {
        answers[case.row].1.extend(case.answers);
    }
    Ok(answers)
}

struct Table<'a> {
    cluster: &'a Cluster,
    authority: Authority,
    node: Node,
    guard_ms: i64,
    // By party and product: what an opt-in must show to have seen.
    revisions: HashMap<String, u64>,
    newest: Option<Receipt>,
}

impl Table<'_> {
    async fn step(&mut self, case: &mut Playing, step: Step) -> anyhow::Result<()> {
        let Case { product, holder, .. } = case.case;
        let (account, organization) = (case.account.clone(), case.organization.clone());
        match step {
            Step::Plan(plan) if holder == Holder::Organization => {
                let party = clients::organization(&organization);
                let receipt = self.authority.set_plan(party, product, plan).await?;
                self.wrote(case, &organization, receipt);
                let receipt = self.authority.put_account(&account, &organization).await?;
                self.wrote(case, &account, receipt);
            }
            Step::Plan(plan) | Step::OwnPlan(plan) => {
                let receipt = self.authority.set_plan(clients::account(&account), product, plan).await?;
                self.wrote(case, &account, receipt);
            }
            Step::Choose(choice) => {
                self.choose(case, &account, product, choice, clients::account(&account)).await?
            }
            Step::ChooseElsewhere(choice) => {
                let other = if product == LE_CHAT { AI_STUDIO } else { LE_CHAT };
                self.choose(case, &account, other, choice, clients::account(&account)).await?;
            }
            Step::OrganizationChooses(choice) => {
                let party = clients::organization(&organization);
                self.choose(case, &organization, product, choice, party).await?;
            }
            Step::Ask(collected, expected) => self.ask(case, collected, expected).await?,
            Step::Cut => {
                self.cluster.wire().blackhole();
                self.node.until(SidecarState::Lapsed).await?;
            }
            Step::Heal => {
                self.cluster.wire().heal();
                self.node.until(SidecarState::Live).await?;
            }
        }
        Ok(())
    }

    async fn choose(
        &mut self,
        case: &mut Playing,
        id: &str,
        product: &str,
        choice: Choice,
        party: consent::pb::Party,
    ) -> anyhow::Result<()> {
        let request = SetConsentRequest {
            expected_revision: (choice == Choice::In).then(|| self.revisions.get(id).copied()).flatten(),
            ..clients::choice(party, product, choice, case.case.channel)
        };
        let receipt = self.authority.choose(request).await?;
        self.wrote(case, id, receipt);
        Ok(())
    }

    fn wrote(&mut self, case: &mut Playing, id: &str, receipt: Receipt) {
        self.revisions.insert(id.to_owned(), clients::revision(&receipt));
        self.newest = Some(receipt.clone());
        case.last = Some(receipt);
    }

    async fn ask(
        &mut self,
        case: &mut Playing,
        collected: Collected,
        expected: Verdict,
    ) -> anyhow::Result<()> {
        let since = match &case.last {
            Some(receipt) => clients::first_allowed(receipt, self.guard_ms)?,
            None => case.began,
        };
        case.collected_at = match collected {
            Collected::LongAgo => case.began - 24 * 3600 * 1000,
            Collected::Before => since - 1,
            Collected::Since => since,
            Collected::Latest => consent::clock::wall().millis() + self.guard_ms,
            Collected::Same => case.collected_at,
        };
        let artifact = clients::artifact(case.case.product, case.case.kind, case.collected_at);
        let seen: Option<Position> = case.last.as_ref().and_then(|receipt| receipt.position.clone());
        let answer = self.node.answers.ask(&case.account, artifact, seen).await?;
        let wrong = judge(&answer, expected);
        let wrong = wrong.map(|wrong| format!("{:?}, collected {collected:?}: {wrong}", case.case));
        case.answers.push(Answer { wrong });
        Ok(())
    }

    // Until the second has begun from which on the newest write's "since" is no longer in the future.
    async fn next_second(&mut self) -> anyhow::Result<()> {
        if let Some(receipt) = self.newest.take() {
            clients::wall_clock_at(clients::first_allowed(&receipt, 0)?).await;
        }
        Ok(())
    }
}

fn judge(answer: &Answered, expected: Verdict) -> Option<String> {
    let (decision, reason) = answer.verdict();
    if (decision, reason) != expected {
        let said = format!("{} {}", decision.as_str_name(), reason.as_str_name());
        return Some(format!("{said}, not {} {}", expected.0.as_str_name(), expected.1.as_str_name()));
    }
    // What an ALLOW promises, and a DENY does not.
    if answer.allows() != answer.response.valid_for.is_some() {
        return Some(format!("valid_for is {:?}", answer.response.valid_for));
    }
    if answer.allows() && answer.response.r#final {
        return Some("an ALLOW that is final".to_owned());
    }
    None
}
