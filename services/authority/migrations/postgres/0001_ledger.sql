-- The ledger and what is derived from it.
--
-- Names and numbers are the same in every store. Times are Unix milliseconds, names and hashes are bytes, `kind`
-- is the number of a head's kind: 1 policy, 2 organization, 3 account, 4 exclusion.

-- This server's own name and the timeline of its history. A promoted standby is on another timeline, a restored
-- cluster on another or of another name. On a standby it raises: that is no primary. Engines without a write-ahead
-- log of this kind replace this one view.
CREATE VIEW live_server AS
    SELECT system_identifier::text || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS identity
    FROM pg_control_system();

-- One row. Whoever appends holds its lock until the commit is visible: revisions are dense and in commit order.
CREATE TABLE ledger_head (
    one             boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch           bytea  NOT NULL CHECK (length(epoch) = 16),
    server_identity text   NOT NULL,
    settled_epoch   bytea  NOT NULL CHECK (length(settled_epoch) = 16),
    last_rev        bigint NOT NULL,
    chain           bytea  NOT NULL CHECK (length(chain) = 32),
    digest          bytea  NOT NULL CHECK (length(digest) = 32),
    recorded_at     bigint NOT NULL,
    id_key          bytea  NOT NULL CHECK (length(id_key) = 16)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Append-only, and without a word about a person.
CREATE TABLE ledger (
    rev         bigint PRIMARY KEY,
    event       bytea  NOT NULL,
    link        bytea  NOT NULL CHECK (length(link) = 32),
    chain       bytea  NOT NULL CHECK (length(chain) = 32),
    digest      bytea  NOT NULL CHECK (length(digest) = 32),
    recorded_at bigint NOT NULL
);

-- What nodes are sent of a revision. Its key is the keyed hash of an id, beside the subject that the ledger names at
-- the same revision: as long as a row is here, whoever has the secret can tie that subject to an id. So an erasure must
-- take the rows of its key out, too; whoever resumes from before such a row takes a snapshot then. Apart from the
-- ledger, so that this can be done. Nothing does it yet, and a reader takes a row that is missing for a broken ledger.
CREATE TABLE feed (
    rev          bigint   PRIMARY KEY,
    kind         smallint NOT NULL,
    key          bytea    NOT NULL,
    head         bytea    NOT NULL,
    organization bytea
);

-- The present state. Room for updates in the page: most of them change no index.
CREATE TABLE head (
    kind         smallint NOT NULL,
    key          bytea    NOT NULL CHECK (length(key) = 16),
    head         bytea    NOT NULL,
    rev          bigint   NOT NULL,
    organization bytea,
    PRIMARY KEY (kind, key)
) WITH (fillfactor = 70);

-- Whom the subjects of events name. An erasure deletes its row: the key goes on in `head`, the subject in `ledger`.
CREATE TABLE subject (
    subject bytea    PRIMARY KEY CHECK (length(subject) = 16),
    kind    smallint NOT NULL,
    key     bytea    NOT NULL,
    id      text     NOT NULL,
    UNIQUE (kind, key)
);

-- Who did it, through what. An erasure deletes the rows of its party's events, and those under the same caller and
-- request_id: one write may make events of several parties, and its evidence stands at each of them.
CREATE TABLE evidence (
    rev        bigint  PRIMARY KEY,
    caller     text    NOT NULL,
    request_id bytea   NOT NULL,
    actor      text    NOT NULL,
    channel    bigint  NOT NULL,
    notice     text    NOT NULL,
    document   text
);
CREATE INDEX evidence_document ON evidence (rev) WHERE document IS NOT NULL;

-- Every write that was answered, those that changed nothing too: their late retry would undo a newer choice.
CREATE TABLE request (
    caller       text    NOT NULL,
    request_id   bytea   NOT NULL CHECK (length(request_id) = 16),
    payload_hash bytea   NOT NULL CHECK (length(payload_hash) = 32),
    rev          bigint  NOT NULL,
    chain        bytea   NOT NULL,
    recorded_at  bigint  NOT NULL,
    changed      boolean NOT NULL,
    PRIMARY KEY (caller, request_id)
);

CREATE TABLE authority_lease (
    incarnation bytea   PRIMARY KEY CHECK (length(incarnation) = 16),
    replica     text    NOT NULL,
    reg_rev     bigint  NOT NULL,
    renew_seq   bigint  NOT NULL,
    drained_rev bigint  NOT NULL,
    closed      boolean NOT NULL
);
CREATE INDEX authority_lease_open ON authority_lease (incarnation) WHERE NOT closed;

CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % is refused', TG_OP;
END
$$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- A ledger born empty is born settled. Its random names come from the program, by the settings of this session.
INSERT INTO ledger_head (epoch, server_identity, settled_epoch, last_rev, chain, digest, recorded_at, id_key)
SELECT epoch, identity, epoch, 0, decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), 0, id_key
FROM live_server,
     (SELECT decode(current_setting('consent.epoch'), 'hex') AS epoch,
             decode(current_setting('consent.id_key'), 'hex') AS id_key) AS birth;
