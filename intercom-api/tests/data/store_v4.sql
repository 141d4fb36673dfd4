-- A store as the program of version 4 left it, with one thing of each kind.
CREATE TABLE account (
    number TEXT PRIMARY KEY, password TEXT NOT NULL, type INTEGER NOT NULL CHECK (type IN (0, 1)),
    name TEXT, created_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE sip_group (id TEXT PRIMARY KEY, name TEXT, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE member (
    group_id TEXT NOT NULL REFERENCES sip_group (id) ON DELETE CASCADE,
    number TEXT NOT NULL REFERENCES account (number) ON DELETE CASCADE,
    position INTEGER NOT NULL, PRIMARY KEY (group_id, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX member_number ON member (number);
    CREATE TABLE door (
    iot_id TEXT PRIMARY KEY, number TEXT NOT NULL REFERENCES account (number) ON DELETE CASCADE,
    password TEXT NOT NULL, host TEXT NOT NULL, port TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE room (
    iot_id TEXT NOT NULL, room TEXT NOT NULL, group_id TEXT NOT NULL REFERENCES sip_group (id) ON DELETE CASCADE,
    PRIMARY KEY (iot_id, room)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX room_group ON room (group_id);
CREATE TABLE record (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, road TEXT NOT NULL, door TEXT NOT NULL, call TEXT NOT NULL,
    reqsn INTEGER NOT NULL, asked_ms INTEGER NOT NULL, sent_ms INTEGER, ended_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL, status INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX record_door ON record (door, id);
CREATE TABLE binding (
    id INTEGER PRIMARY KEY, number TEXT NOT NULL, made_with INTEGER NOT NULL, contact TEXT NOT NULL, instance TEXT,
    reg_id INTEGER, path TEXT, local TEXT NOT NULL, remote TEXT NOT NULL, call_id TEXT NOT NULL, cseq INTEGER NOT NULL,
    user_agent TEXT, registered_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL
    ) STRICT;
CREATE TABLE snapshot (
    id TEXT NOT NULL UNIQUE, call TEXT NOT NULL, door TEXT NOT NULL, why TEXT NOT NULL, preset TEXT NOT NULL,
    taken_ms INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, file TEXT
    ) STRICT;
    CREATE INDEX snapshot_call ON snapshot (call);
    CREATE INDEX snapshot_age ON snapshot (taken_ms) WHERE file IS NOT NULL;
    ALTER TABLE record ADD COLUMN snapshot TEXT;
    CREATE INDEX record_snapshot ON record (snapshot) WHERE snapshot IS NOT NULL;
INSERT INTO record (id, account, road, door, call, reqsn, asked_ms, sent_ms, ended_ms, outcome, status, snapshot) VALUES
    (1, 'p1', 'info', 'd', 'c', 7, 1000, 1001, 1090, 'opened', 200, 'c-1'),
    (2, 'p2', 'info', 'd', 'c', 8, 9000, 9001, 11700, 'unknown', 408, 'c-2');
INSERT INTO snapshot (id, call, door, why, preset, taken_ms, width, height, bytes, sha256, file) VALUES
    ('c-1', 'c', 'd', 'unlock', 'large', 1000, 640, 480, 100, 'aa', '1970-01-01/c-1.jpg'),
    ('c-2', 'c', 'd', 'unlock', 'large', 9000, 640, 480, 100, 'bb', NULL);
PRAGMA user_version = 4;
