//! Redis fails while the node runs, and while it starts: answers and acks go on, and the copy comes back by itself.

use super::stage::Stage;
use crate::copy::PLACE;
use crate::ledger::frames;
use crate::script::{Granting, long, until};
use consent::pb::Reason;
use consent_core::confirm::Start;
use consent_core::words::Choice;
use redis::Commands;

/// Breaks Redis under a node that is LIVE; then somebody opts out. The opt-out is answered and acked all the same.
/// When Redis is well again the copy is good for a restart. Meanwhile the trouble is counted under its kind.
async fn is_outlasted(kind: &str, hurt: impl FnOnce(&mut Stage), heal: impl FnOnce(&mut Stage)) {
    let mut stage = Stage::set().await;
    let (node, mut session) = stage.first_run().await;
    node.answers(Reason::PlanDefaultIn).await;
    hurt(&mut stage);
    opts_out(&mut stage, &mut session).await;
    node.answers(Reason::AccountOptedOut).await;
    let row = format!("consent_redis_errors_total{{kind=\"{kind}\"}}");
    until(&row, || node.metric(&row), |count| count.is_some_and(|count| count > 0.0)).await;
    heal(&mut stage);
    stage.kept().await;
    let stands_at = Some(stage.ledger.place.revision.get() as f64);
    until("the copy", || node.metric("consent_redis_written_revision"), |at| *at == stands_at).await;
    assert_eq!(node.metric("consent_redis_connected").await, Some(1.0));
    assert_eq!(node.metric("consent_redis_backlog_changes").await, Some(0.0));
    drop((node, session));
    stage.goes_on(Reason::AccountOptedOut).await;
}

async fn opts_out(stage: &mut Stage, session: &mut Granting) {
    session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    session.acked(stage.ledger.place).await;
}

fn run(stage: &Stage, commands: &[&str]) {
    for command in commands {
        stage.redis.run(command).unwrap();
    }
}

#[tokio::test]
async fn out_of_memory() {
    let full = |stage: &mut Stage| {
        run(stage, &["CONFIG SET maxmemory 1"]);
        assert!(stage.redis.run("SET x y").unwrap_err().contains("OOM"));
    };
    is_outlasted("memory", full, |stage| run(stage, &["CONFIG SET maxmemory 0"])).await;
}

#[tokio::test]
async fn read_only() {
    let replica = |stage: &mut Stage| {
        run(stage, &["REPLICAOF 127.0.0.1 1"]);
        assert!(stage.redis.run("SET x y").unwrap_err().to_uppercase().contains("READONLY"));
    };
    is_outlasted("read_only", replica, |stage| run(stage, &["REPLICAOF NO ONE"])).await;
}

#[tokio::test]
async fn a_password_that_the_node_does_not_have() {
    let locked = |stage: &mut Stage| {
        let mut con = stage.con();
        let set = |con: &mut redis::Connection, words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command.exec(con).unwrap();
        };
        set(&mut con, &["CONFIG", "SET", "requirepass", "secret"]);
        set(&mut con, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(stage.redis.run("GET x").unwrap_err().contains("NOAUTH"));
    };
    let unlocked = |stage: &mut Stage| {
        let url = format!("{}?pass=secret", stage.redis.url());
        let mut con = redis::Client::open(url).unwrap().get_connection().unwrap();
        redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec(&mut con).unwrap();
    };
    is_outlasted("denied", locked, unlocked).await;
}

#[tokio::test]
async fn a_disk_that_takes_no_dump() {
    let broken = |stage: &mut Stage| {
        // A folder where the dump should go.
        std::fs::create_dir(stage.redis.dump()).unwrap();
        let mut con = stage.con();
        redis::cmd("CONFIG").arg(&["SET", "save", "3600 1000000"]).exec(&mut con).unwrap();
        let _: Result<redis::Value, _> = redis::cmd("BGSAVE").query(&mut con);
        while stage.redis.run("SET x y").is_ok() {}
        assert!(stage.redis.run("SET x y").unwrap_err().contains("MISCONF"));
    };
    let repaired = |stage: &mut Stage| {
        std::fs::remove_dir(stage.redis.dump()).unwrap();
        run(stage, &["SAVE"]);
    };
    is_outlasted("read_only", broken, repaired).await;
}

#[tokio::test]
async fn a_server_that_hangs() {
    is_outlasted("unreachable", |stage| stage.redis.pause().unwrap(), |stage| stage.redis.go_on().unwrap())
        .await;
}

#[tokio::test]
async fn a_server_that_was_killed_and_comes_back_empty() {
    is_outlasted(
        "unreachable",
        |stage| stage.redis.kill_hard().unwrap(),
        |stage| stage.redis.restart().unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_server_that_comes_back_with_an_older_dump() {
    let mut dump = Vec::new();
    let swapped = |stage: &mut Stage| {
        dump = stage.redis.save().unwrap();
        stage.redis.kill_hard().unwrap();
        stage.redis.put_dump(&dump).unwrap();
    };
    is_outlasted("unreachable", swapped, |stage| stage.redis.restart().unwrap()).await;
}

#[tokio::test]
async fn everything_flushed() {
    is_outlasted("foreign", |stage| run(stage, &["FLUSHALL"]), |_| ()).await;
}

/// A command that is refused because of what lies there would be refused for ever: the copy is written anew.
async fn is_written_anew(hurt: &[&str], and_changed: bool) {
    let mut stage = Stage::set().await;
    let (node, session) = stage.first_run().await;
    let before = stage.generation();
    run(&stage, hurt);
    if and_changed {
        session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    }
    stage.kept_anew(before).await;
    drop((node, session));
    stage.goes_on(if and_changed { Reason::AccountOptedOut } else { Reason::PlanDefaultIn }).await;
}

#[tokio::test]
async fn a_marker_that_is_a_list_now() {
    is_written_anew(&["DEL consent:place", "RPUSH consent:place x"], false).await;
}

#[tokio::test]
async fn a_log_that_is_a_text_now() {
    is_written_anew(&["SET consent:log x"], true).await;
}

/// Nothing has to change for it to be found.
#[tokio::test]
async fn everything_flushed_while_nothing_happens() {
    let mut stage = Stage::set().await;
    let (_node, _session) = stage.first_run().await;
    let before = stage.generation();
    run(&stage, &["FLUSHALL"]);
    stage.kept_anew(before).await;
}

#[tokio::test]
async fn a_marker_that_another_one_wrote() {
    let mut stage = Stage::set().await;
    let (_node, session) = stage.first_run().await;
    let before = stage.generation();
    stage.con().set::<_, _, ()>(PLACE, "another").unwrap();
    session.say(frames([stage.ledger.choose(Choice::Out)])).await;
    stage.kept_anew(before).await;
}

#[tokio::test]
async fn a_server_that_still_loads_its_dump_is_waited_for() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    let dump = stage.redis.save().unwrap();
    stage.redis.kill_hard().unwrap();
    stage.redis.put_dump(&dump).unwrap();
    stage.redis.restart_slowly(100).unwrap();
    assert!(stage.redis.run("GET x").unwrap_err().to_uppercase().contains("LOADING"));
    stage.goes_on(Reason::PlanDefaultIn).await;
}

/// The whole machine was restarted, and the sidecar is up before its Redis.
#[tokio::test]
async fn a_server_that_comes_up_after_the_node_is_waited_for() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    let dump = stage.redis.save().unwrap();
    stage.redis.kill_hard().unwrap();
    stage.redis.put_dump(&dump).unwrap();
    let node = stage.start_node().await;
    stage.redis.restart().unwrap();
    let session = stage.hello_from_copy(&node, stage.ledger.place).await;
    session.welcome(stage.authority.incarnation, &stage.ledger, long(), Start::Continue).await;
    let _session = session.grant_from_now_on(stage.ledger.place);
    node.answers(Reason::PlanDefaultIn).await;
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_no_start() {
    let mut stage = Stage::set().await;
    drop(stage.first_run().await);
    stage.ledger.choose(Choice::Out);
    stage.redis.pause().unwrap();
    let node = stage.start_node().await;
    let _session = stage.authority.bring_to_life(&stage.ledger, long()).await;
    node.answers(Reason::AccountOptedOut).await;
    stage.redis.go_on().unwrap();
    until("the new place", || async { stage.marker() }, Option::is_some).await;
    stage.kept().await;
}
