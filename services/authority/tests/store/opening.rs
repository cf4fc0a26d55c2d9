//! A store is opened only with the schema of this program, and a ledger is born once.

use crate::batch::{checked_ledger, commit, write};
use crate::stand::{EPOCH, ID_KEY, OnPostgres, OnSqlite, Stand};
use consent_authority::store::{
    Leases, PostgresStore, Reader, SqliteStore, Store, StoreError, postgres, sqlite,
};
use consent_core::chain::Chain;
use consent_core::digest::Digest;
use consent_core::words::{Epoch, IdKey, Revision};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(crate) async fn a_ledger_is_born_empty_and_settled<S: Stand>(stand: S) {
    let store = stand.opened().await;
    let head = store.reader().head().await.expect("the head");
    assert_eq!((head.epoch, head.settled_epoch, head.id_key), (EPOCH, Some(EPOCH), ID_KEY));
    assert_eq!((head.revision, head.chain, head.digest), (Revision::ZERO, Chain::EMPTY, Digest::EMPTY));
    assert_eq!(
        store.reader().proof_at(Revision::ZERO).await.expect("the proof"),
        Some((Chain::EMPTY, Digest::EMPTY))
    );
    let table = store.leases().await.expect("leases").table(&[]).await.expect("the table");
    assert!(table.open.is_empty() && table.head == head);
}

pub(crate) async fn migrating_twice_changes_nothing<S: Stand>(stand: S) {
    assert_eq!(stand.migrate().await.expect("the first").0, 0);
    {
        let store = stand.open().await.expect("the store");
        commit(&mut store.writer().await.expect("a writer"), &[write(1)]).await.expect("a commit");
    }
    let (before, now) = stand.migrate().await.expect("the second");
    assert_eq!(before, now);
    let store = stand.open().await.expect("the store");
    assert_eq!(store.reader().head().await.expect("the head").epoch, EPOCH);
    assert_eq!(checked_ledger(&store).await, 1);
}

pub(crate) async fn a_store_without_schema_is_refused<S: Stand>(stand: S) {
    assert!(matches!(stand.open().await, Err(StoreError::Schema(_))));
}

pub(crate) async fn a_newer_schema_is_refused<S: Stand>(stand: S) {
    stand.migrate().await.expect("the migration");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (1000, 'from the future', true, '', 0)";
    stand.sql(newer).await.expect("the row");
    assert!(matches!(stand.open().await, Err(StoreError::Schema(why)) if why.contains("1000")));
    assert!(matches!(stand.migrate().await, Err(StoreError::Schema(_))), "nor does a migration touch it");
}

pub(crate) async fn another_schema_is_refused<S: Stand>(stand: S) {
    stand.migrate().await.expect("the migration");
    stand.sql("UPDATE _sqlx_migrations SET checksum = 'another'").await.expect("the row");
    assert!(matches!(stand.open().await, Err(StoreError::Schema(_))));
    assert!(matches!(stand.migrate().await, Err(StoreError::Schema(_))));
}

pub(crate) async fn a_second_process_is_refused_by_name_of_the_directory(stand: OnSqlite) {
    let store = stand.opened().await;
    let directory = stand.address();
    let named =
        |error: &StoreError| matches!(error, StoreError::Unavailable(why) if why.contains(&directory));
    let opening = SqliteStore::open(Path::new(&directory)).await.expect_err("a refusal");
    let migrating = sqlite::migrate(Path::new(&directory), EPOCH, ID_KEY).await.expect_err("a refusal");
    assert!(named(&opening) && named(&migrating), "{opening}; {migrating}");
    drop(store);
    assert!(stand.open().await.is_ok(), "the directory is free again");
}

pub(crate) async fn what_is_made_is_its_owners_alone(stand: OnSqlite) {
    let made = Path::new(&stand.address()).join("made");
    sqlite::migrate(&made, EPOCH, ID_KEY).await.expect("the migration");
    let store = SqliteStore::open(&made).await.expect("the store");
    commit(&mut store.writer().await.expect("a writer"), &[write(1)]).await.expect("a commit");
    let mode = |path: &Path| std::fs::metadata(path).expect("it").permissions().mode() & 0o777;
    assert_eq!(mode(&made), 0o700);
    let files: Vec<_> =
        std::fs::read_dir(&made).expect("files").map(|file| file.expect("a file").path()).collect();
    assert!(files.len() > 2, "the log is there: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

pub(crate) async fn a_copied_file_is_another_server(stand: OnSqlite) {
    drop(stand.opened().await);
    let copy = tempfile::tempdir().expect("a directory");
    // Closed, the whole database is in the one file.
    stand.sql("PRAGMA wal_checkpoint(TRUNCATE)").await.expect("a checkpoint");
    let from = Path::new(&stand.address()).join("consent.db");
    std::fs::copy(from, copy.path().join("consent.db")).expect("a copy");
    let store = SqliteStore::open(copy.path()).await.expect("the copy");
    assert!(matches!(store.reader().head().await, Err(StoreError::Foreign)));
    let fresh = Epoch::new([9; 16]);
    assert!(store.leases().await.expect("leases").mint(fresh).await.expect("the mint"));
    let head = store.reader().head().await.expect("the head");
    assert_eq!(
        (head.epoch, head.settled_epoch, head.id_key),
        (fresh, Some(EPOCH), IdKey::new(*ID_KEY.bytes()))
    );
}

pub(crate) async fn a_database_that_cannot_keep_every_id_is_refused(stand: OnPostgres) {
    let address = stand.address();
    let database = address.split(['/', '?']).find(|part| part.starts_with("test_")).expect("a database");
    let make = format!("CREATE DATABASE {database}_ascii ENCODING 'SQL_ASCII' TEMPLATE template0");
    stand.sql(&make).await.expect("the database");
    let address = address.replacen(database, &format!("{database}_ascii"), 1);
    let refused = postgres::migrate(&address, EPOCH, ID_KEY).await.expect_err("a refusal");
    assert!(matches!(&refused, StoreError::Unavailable(why) if why.contains("UTF8")), "{refused}");
}

pub(crate) async fn a_migration_may_take_its_time(stand: OnPostgres) {
    let witness = "CREATE TABLE seen (statement_timeout text);
                   CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS
                       $$ BEGIN INSERT INTO seen VALUES (current_setting('statement_timeout')); END $$;
                   CREATE EVENT TRIGGER see ON ddl_command_start EXECUTE FUNCTION see()";
    stand.sql(witness).await.expect("the witness");
    stand.migrate().await.expect("the migration");
    let bounded =
        "DO $$ BEGIN ASSERT (SELECT count(*) > 0 AND bool_and(statement_timeout = '0') FROM seen); END $$";
    stand.sql(bounded).await.expect("no statement of it was bounded");
}

/// R1 reads what it decides from after the wait for the lock, so in a newer snapshot: never by a database's default.
pub(crate) async fn a_databases_own_isolation_is_overruled(stand: OnPostgres) {
    let address = stand.address();
    let database = address.split(['/', '?']).find(|part| part.starts_with("test_")).expect("a database");
    let stricter = format!("ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'");
    stand.sql(&stricter).await.expect("the setting");
    crate::writing::what_is_read_under_the_lock_is_newer_than_the_wait(stand).await;
}

pub(crate) async fn a_role_without_privileges_is_enough(stand: OnPostgres) {
    let address = stand.address();
    let database = address.split(['/', '?']).find(|part| part.starts_with("test_")).expect("a database");
    let role = format!("owner_of_{database}");
    stand.sql(&format!("CREATE ROLE {role} LOGIN")).await.expect("the role");
    stand.sql(&format!("ALTER DATABASE {database} OWNER TO {role}")).await.expect("its database");
    let address = address.replacen("consent@", &format!("{role}@"), 1);
    postgres::migrate(&address, EPOCH, ID_KEY).await.expect("the migration");
    let store = PostgresStore::open(&address).await.expect("the store");
    commit(&mut store.writer().await.expect("a writer"), &[write(1)]).await.expect("a commit");
    assert_eq!(checked_ledger(&store).await, 1);
    assert!(store.leases().await.expect("leases").settle(EPOCH).await.expect("an answer"));
}
