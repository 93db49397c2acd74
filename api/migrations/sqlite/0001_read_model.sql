-- The read model: what the API answers from. All of it follows from the log and can be thrown away at any time.
-- The same tables as in ../postgres, as SQLite likes them best.

-- Up to where the log has been read, and which log it was: another server's, or a recreated one, is told by the moment
-- that its stream was made.
CREATE TABLE checkpoint (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    stream  TEXT    NOT NULL,
    version TEXT    NOT NULL,
    seq     INTEGER NOT NULL
);
INSERT INTO checkpoint (id, stream, version, seq) VALUES (1, '', '', 0);

-- A scenario's state, folded from its events. A deleted one stays: its log goes on if it is created again.
CREATE TABLE scenarios (
    id      TEXT    PRIMARY KEY,
    present BOOLEAN NOT NULL,
    state   TEXT    NOT NULL
);

-- The log, a line an event. An INTEGER PRIMARY KEY is the row's own number: it needs no index beside the table.
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,
    scenario TEXT    NOT NULL,
    line     TEXT    NOT NULL
);
CREATE INDEX events_of_scenario ON events (scenario, seq);

-- What became of a command. A key may be used again once the inbox has forgotten it: the latest use counts.
CREATE TABLE commands (
    scenario TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    input    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    refusal  TEXT,
    PRIMARY KEY (scenario, key)
) WITHOUT ROWID;
