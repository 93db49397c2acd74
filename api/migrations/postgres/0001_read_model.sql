-- The read model: what the APIs answer from. All of it follows from the log and can be thrown away at any time.
-- The same tables as in ../sqlite, in a schema of their own (kadr), which opening makes and puts on the search path.

-- Up to where the log has been read, and which log it was: another server's, or a recreated one, is told by the moment
-- that its stream was made. Whoever writes locks this row first.
CREATE TABLE checkpoint (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    stream  TEXT    NOT NULL,
    version TEXT    NOT NULL,
    seq     BIGINT  NOT NULL
);
INSERT INTO checkpoint (id, stream, version, seq) VALUES (1, '', '', 0);

-- A scenario's state, folded from its events. A deleted one stays: its log goes on if it is created again.
-- Ids are compared byte by byte, as SQLite does: the order of a page must not hang on the server's language.
CREATE TABLE scenarios (
    id      TEXT COLLATE "C" PRIMARY KEY,
    present BOOLEAN NOT NULL,
    state   TEXT    NOT NULL
);

-- The log, a line an event.
CREATE TABLE events (
    seq      BIGINT PRIMARY KEY,
    scenario TEXT COLLATE "C" NOT NULL,
    line     TEXT   NOT NULL
);
CREATE INDEX events_of_scenario ON events (scenario, seq);

-- What became of a command. A key may be used again once the inbox has forgotten it: the latest use counts.
CREATE TABLE commands (
    scenario TEXT COLLATE "C" NOT NULL,
    key      TEXT COLLATE "C" NOT NULL,
    input    BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    refusal  TEXT,
    PRIMARY KEY (scenario, key)
);
