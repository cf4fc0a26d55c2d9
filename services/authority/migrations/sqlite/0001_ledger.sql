-- The ledger and what is derived from it.
--
-- Names and numbers are the same in every store. Times are Unix milliseconds, names and hashes are bytes, `kind`
-- is the number of a head's kind: 1 policy, 2 organization, 3 account, 4 exclusion.
-- `live_server(identity)` and `birth(epoch, id_key)` are temporary tables of the connection.

-- One row. Whoever appends holds the write lock until the commit is visible: revisions are dense and in commit order.
CREATE TABLE ledger_head (
    one             INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    epoch           BLOB    NOT NULL CHECK (length(epoch) = 16),
    server_identity TEXT    NOT NULL,
    settled_epoch   BLOB    NOT NULL CHECK (length(settled_epoch) = 16),
    last_rev        INTEGER NOT NULL,
    chain           BLOB    NOT NULL CHECK (length(chain) = 32),
    digest          BLOB    NOT NULL CHECK (length(digest) = 32),
    recorded_at     INTEGER NOT NULL,
    id_key          BLOB    NOT NULL CHECK (length(id_key) = 16)
) STRICT;

-- Append-only, and without a word about a person.
CREATE TABLE ledger (
    rev         INTEGER PRIMARY KEY,
    event       BLOB    NOT NULL,
    link        BLOB    NOT NULL CHECK (length(link) = 32),
    chain       BLOB    NOT NULL CHECK (length(chain) = 32),
    digest      BLOB    NOT NULL CHECK (length(digest) = 32),
    recorded_at INTEGER NOT NULL
) STRICT;

-- What nodes are sent of a revision. Its key is the keyed hash of an id, beside the subject that the ledger names at
-- the same revision: as long as a row is here, whoever has the secret can tie that subject to an id. So an erasure must
-- take the rows of its key out, too; whoever resumes from before such a row takes a snapshot then. Apart from the
-- ledger, so that this can be done. Nothing does it yet, and a reader takes a row that is missing for a broken ledger.
CREATE TABLE feed (
    rev          INTEGER PRIMARY KEY,
    kind         INTEGER NOT NULL,
    key          BLOB    NOT NULL,
    head         BLOB    NOT NULL,
    organization BLOB
) STRICT;

-- The present state.
CREATE TABLE head (
    kind         INTEGER NOT NULL,
    key          BLOB    NOT NULL CHECK (length(key) = 16),
    head         BLOB    NOT NULL,
    rev          INTEGER NOT NULL,
    organization BLOB,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- Whom the subjects of events name. An erasure deletes its row: the key goes on in `head`, the subject in `ledger`.
CREATE TABLE subject (
    subject BLOB    PRIMARY KEY CHECK (length(subject) = 16),
    kind    INTEGER NOT NULL,
    key     BLOB    NOT NULL,
    id      TEXT    NOT NULL,
    UNIQUE (kind, key)
) STRICT, WITHOUT ROWID;

-- Who did it, through what. An erasure deletes the rows of its party's events, and those under the same caller and
-- request_id: one write may make events of several parties, and its evidence stands at each of them.
CREATE TABLE evidence (
    rev        INTEGER PRIMARY KEY,
    caller     TEXT    NOT NULL,
    request_id BLOB    NOT NULL,
    actor      TEXT    NOT NULL,
    channel    INTEGER NOT NULL,
    notice     TEXT    NOT NULL,
    document   TEXT
) STRICT;
CREATE INDEX evidence_document ON evidence (rev) WHERE document IS NOT NULL;

-- Every write that was answered, those that changed nothing too: their late retry would undo a newer choice.
CREATE TABLE request (
    caller       TEXT    NOT NULL,
    request_id   BLOB    NOT NULL CHECK (length(request_id) = 16),
    payload_hash BLOB    NOT NULL CHECK (length(payload_hash) = 32),
    rev          INTEGER NOT NULL,
    chain        BLOB    NOT NULL,
    recorded_at  INTEGER NOT NULL,
    changed      INTEGER NOT NULL,
    PRIMARY KEY (caller, request_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE authority_lease (
    incarnation BLOB    PRIMARY KEY CHECK (length(incarnation) = 16),
    replica     TEXT    NOT NULL,
    reg_rev     INTEGER NOT NULL,
    renew_seq   INTEGER NOT NULL,
    drained_rev INTEGER NOT NULL,
    closed      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX authority_lease_open ON authority_lease (incarnation) WHERE NOT closed;

CREATE TRIGGER ledger_refuses_update BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE is refused'); END;
CREATE TRIGGER ledger_refuses_delete BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: DELETE is refused'); END;

-- A ledger born empty is born settled.
INSERT INTO ledger_head (epoch, server_identity, settled_epoch, last_rev, chain, digest, recorded_at, id_key)
SELECT epoch, identity, epoch, 0, zeroblob(32), zeroblob(32), 0, id_key FROM live_server, birth;
