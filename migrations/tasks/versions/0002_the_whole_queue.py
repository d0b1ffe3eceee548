"""Recurrence rules, retries, keys, roles, batches, reported runs, and a history in partitions.

Tables whose checks change are made anew and filled from the old ones: SQLite cannot change a check.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0002"
down_revision = "0001"

_REPLACED = ("occurrences", "tasks", "runs", "run_history")


def upgrade() -> None:
    for table in _REPLACED:
        op.execute(f"CREATE TABLE old_{table} AS SELECT * FROM {table}")
        op.drop_table(table)
    _create_tasks()
    _create_occurrences()
    _create_runs()
    _create_run_history()
    _create_small_tables()
    _fill()
    for table in _REPLACED:
        op.drop_table(f"old_{table}")


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", Id, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("description", sa.String(2000), nullable=False),
        sa.Column("schedule_kind", sa.String(16), nullable=False),
        sa.Column("schedule_expr", sa.String(1000), nullable=False),
        sa.Column("schedule_anchor", Timestamp, nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("dedupe_key", sa.String(100), nullable=False),
        sa.Column("dedupe_window_seconds", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.SmallInteger(), nullable=False),
        sa.Column("backoff_strategy", sa.String(24), nullable=False),
        sa.Column("concurrency_key", sa.String(100), nullable=False),
        sa.Column("misfire", sa.String(16), nullable=False),
        sa.Column("overlap", sa.String(16), nullable=False),
        sa.Column("role", sa.String(50), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("paused_at", Timestamp),
        sa.Column("next_fire_at", Timestamp),
        sa.Column("next_scheduled_for", Timestamp),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        _check("tasks", "schedule_kind", "schedule_kind IN ('cron', 'rrule', 'once', 'manual')"),
        _check("tasks", "status", "status IN ('active', 'paused', 'canceled', 'completed')"),
        _check("tasks", "priority", "priority BETWEEN 1 AND 9"),
        _check("tasks", "max_retries", "max_retries BETWEEN 0 AND 10"),
        _check("tasks", "backoff_strategy", "backoff_strategy IN ('exponential_jitter', 'linear', 'fixed')"),
        _check("tasks", "misfire", "misfire IN ('skip', 'run_once', 'run_all')"),
        _check("tasks", "overlap", "overlap IN ('allow', 'skip', 'queue')"),
        _check("tasks", "paused_at", "(status = 'paused') = (paused_at IS NOT NULL)"),
        _check("tasks", "next_scheduled_for", "(next_fire_at IS NULL) = (next_scheduled_for IS NULL)"),
    )
    _partial("ix_tasks_due", "tasks", ["next_fire_at", "id"], "status = 'active' AND next_fire_at IS NOT NULL")
    op.create_index("ix_tasks_created_by", "tasks", ["created_by", "id"])


def _create_occurrences() -> None:
    with_run = "'ran', 'skipped_overlap', 'suppressed_duplicate'"
    outcomes = "'ran', 'skipped_overlap', 'missed', 'suppressed_duplicate', 'paused', 'canceled'"
    op.create_table(
        "occurrences",
        sa.Column("task_id", Id, nullable=False),
        sa.Column("scheduled_for", Timestamp, nullable=False),
        sa.Column("through", Timestamp),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("run_id", Id),
        sa.Column("decided_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "scheduled_for", name="pk_occurrences"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_occurrences_task_id"),
        _check("occurrences", "outcome", f"outcome IN ({outcomes})"),
        _check("occurrences", "run_id", f"(outcome IN ({with_run})) = (run_id IS NOT NULL)"),
        _check("occurrences", "through", "through > scheduled_for"),
    )
    op.create_index("ix_occurrences_decided_at", "occurrences", ["decided_at"])


def _run_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", Id, nullable=False),
        sa.Column("task_id", Id),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("batch_id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(50), nullable=False),
        sa.Column("agent_id", Id),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("reported", sa.Boolean(), nullable=False),
        sa.Column("retry_of", Id),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("due_at", Timestamp, nullable=False),
        sa.Column("started_at", Timestamp),
        sa.Column("finished_at", Timestamp),
        sa.Column("duration_ms", sa.BigInteger()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retries", sa.SmallInteger(), nullable=False),
        sa.Column("max_retries", sa.SmallInteger(), nullable=False),
        sa.Column("backoff_strategy", sa.String(24), nullable=False),
        sa.Column("concurrency_key", sa.String(100), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("traceparent", sa.String(55), nullable=False),
        sa.Column("error", Json),
        sa.Column("outputs_uri", sa.String(512), nullable=False),
        sa.Column("log_excerpt", sa.String(2000), nullable=False),
        sa.Column("approval_state", sa.String(16)),
        sa.Column("approver", sa.String(128), nullable=False),
        sa.Column("approval_note", sa.String(2000), nullable=False),
        sa.Column("webhook_notified_at", Timestamp),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
    ]


def _approval_state(table: str) -> sa.CheckConstraint:
    return _check(table, "approval_state", "approval_state IN ('pending', 'approved', 'rejected', 'cancelled')")


def _create_runs() -> None:
    op.create_table(
        "runs",
        *_run_columns(),
        sa.Column("payload_size", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("lease_token", Id),
        sa.Column("lease_owner", Id),
        sa.Column("lease_expires_at", Timestamp),
        sa.Column("reported_status", sa.String(24)),
        sa.Column("paused_at", Timestamp),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("cancel_requested_at", Timestamp),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        _approval_state("runs"),
        _check(
            "runs",
            "lease",
            "(lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (lease_expires_at IS NULL)",
        ),
        _check("runs", "reported_status", "reported_status IN ('queued', 'running', 'awaiting_approval')"),
    )
    free = "lease_token IS NULL AND reported_status IS NULL AND paused_at IS NULL AND "
    claim = ["role", "priority", "due_at", "id"]
    _partial("ix_runs_claim", "runs", claim, f"{free}NOT blocked", f"{free}blocked = 0")
    _partial("ix_runs_lease_expires_at", "runs", ["lease_expires_at"], "lease_token IS NOT NULL")
    held = "lease_token IS NOT NULL AND concurrency_key <> ''"
    _partial("uq_runs_concurrency_key", "runs", ["concurrency_key"], held, unique=True)
    head = "concurrency_key <> '' AND "
    _partial(
        "uq_runs_head", "runs", ["role", "concurrency_key"], f"{head}NOT blocked", f"{head}blocked = 0", unique=True
    )
    line = ["role", "concurrency_key", "priority", "due_at", "id"]
    _partial("ix_runs_line", "runs", line, "paused_at IS NULL AND blocked", "paused_at IS NULL AND blocked = 1")
    op.create_index("ix_runs_task_id", "runs", ["task_id", "id"])
    _partial("ix_runs_batch_id", "runs", ["batch_id", "id"], "batch_id <> ''")
    _partial("ix_runs_reported_status", "runs", ["reported_status", "id"], "reported_status IS NOT NULL")


def _create_run_history() -> None:
    op.create_table(
        "run_history",
        *_run_columns(),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("output", Json),
        sa.PrimaryKeyConstraint("id", name="pk_run_history"),
        _approval_state("run_history"),
        _check("run_history", "status", "status IN ('succeeded', 'failed', 'skipped', 'canceled')"),
        _check("run_history", "finished_at", "finished_at IS NOT NULL"),
        _check("run_history", "error", "status IN ('failed', 'canceled') OR error IS NULL"),
        postgresql_partition_by="RANGE (id)",
    )
    for name in ("task_id", "task", "agent_id", "role"):
        op.create_index(f"ix_run_history_{name}", "run_history", [name, "status", "id", "duration_ms"])
    op.create_index("ix_run_history_status", "run_history", ["status", "id", "duration_ms"])
    _partial("ix_run_history_batch_id", "run_history", ["batch_id", "status", "id"], "batch_id <> ''")
    _partial("ix_run_history_told", "run_history", ["id"], "log_excerpt <> '' OR error IS NOT NULL")
    op.create_table("run_names", sa.Column("task", sa.String(64), nullable=False), _primary_key("run_names", "task"))
    if op.get_bind().dialect.name == "postgresql":
        _create_postgres_search()
        _create_partitions()
    else:
        _create_sqlite_search()


def _create_postgres_search() -> None:
    """An index of what runs tell, by all three bytes that follow one another; and triggers that collect names."""
    op.execute("""
        CREATE FUNCTION trigrams(words text) RETURNS integer[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
        COST 1000 AS $$
            SELECT array_agg(get_byte(bytes, i) * 65536 + get_byte(bytes, i + 1) * 256 + get_byte(bytes, i + 2))
            FROM (SELECT convert_to(words, 'UTF8') AS bytes OFFSET 0) AS converted,
                generate_series(0, octet_length(bytes) - 3) AS i
        $$
    """)
    # Little is left to be looked through at every search before it is sorted in.
    op.execute("""
        CREATE INDEX ix_run_history_words ON run_history
        USING gin (trigrams(lower(log_excerpt || chr(10) || coalesce(error ->> 'message', ''))))
        WITH (gin_pending_list_limit = 512) WHERE log_excerpt <> '' OR error IS NOT NULL
    """)
    op.execute("""
        CREATE FUNCTION collect_run_name() RETURNS trigger LANGUAGE plpgsql SET search_path = tasks, pg_temp AS $$
        BEGIN
            IF TG_TABLE_NAME = 'tasks' THEN
                INSERT INTO run_names VALUES (left(NEW.title, 64)) ON CONFLICT DO NOTHING;
            ELSE
                INSERT INTO run_names VALUES (NEW.task) ON CONFLICT DO NOTHING;
            END IF;
            RETURN NULL;
        END
        $$
    """)
    collect = "FOR EACH ROW {when} EXECUTE FUNCTION collect_run_name()"
    for table in ("runs", "run_history"):
        when = collect.format(when="WHEN (NEW.reported)")
        op.execute(f"CREATE TRIGGER {table}_name AFTER INSERT ON {table} {when}")
    op.execute(f"CREATE TRIGGER tasks_name AFTER INSERT OR UPDATE OF title ON tasks {collect.format(when='')}")


def _create_partitions() -> None:
    """Months of ids, and what lies before and after them; the functions are for a login that owns no table."""
    op.execute("""
        CREATE FUNCTION run_history_bound(month timestamp) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
            SELECT (lpad(to_hex((extract(epoch FROM month) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
        $$
    """)
    op.execute("""
        CREATE FUNCTION run_history_months() RETURNS TABLE (month timestamp) LANGUAGE sql STABLE
        SET search_path = tasks, pg_temp AS $$
            SELECT to_date(right(relname, 7), 'YYYY_MM')::timestamp FROM pg_inherits JOIN pg_class ON oid = inhrelid
            WHERE inhparent = 'run_history'::regclass AND relname ~ '_[0-9]{4}_[0-9]{2}$'
        $$
    """)
    # Without a default partition the months stand in the order of their ids, so that a page reads the newest alone.
    # A month is cut off the front of what lies after: that is empty but for clocks that are ahead.
    op.execute("""
        CREATE FUNCTION make_run_history_months(ahead integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = tasks, pg_temp SET lock_timeout = '2s' AS $$
        DECLARE
            last timestamp := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => least(ahead, 24));
            next timestamp;
            made integer := 0;
        BEGIN
            IF last <= (SELECT max(month) FROM run_history_months()) THEN
                RETURN 0;
            END IF;
            LOCK TABLE run_history IN SHARE UPDATE EXCLUSIVE MODE;
            next := (SELECT max(month) FROM run_history_months()) + interval '1 month';
            IF next > last THEN
                RETURN 0;
            END IF;
            ALTER TABLE run_history DETACH PARTITION run_history_after;
            WHILE next <= last LOOP
                EXECUTE format(
                    'CREATE TABLE run_history_%s PARTITION OF run_history FOR VALUES FROM (%L) TO (%L)',
                    to_char(next, 'YYYY_MM'), run_history_bound(next), run_history_bound(next + interval '1 month')
                );
                next := next + interval '1 month';
                made := made + 1;
            END LOOP;
            WITH moved AS (DELETE FROM run_history_after WHERE id < run_history_bound(next) RETURNING *)
            INSERT INTO run_history SELECT * FROM moved;
            EXECUTE format(
                'ALTER TABLE run_history ATTACH PARTITION run_history_after FOR VALUES FROM (%L) TO (MAXVALUE)',
                run_history_bound(next)
            );
            RETURN made;
        END
        $$
    """)
    # The first month only, so that what lies before can take over its range. Answers its runs, or null for none.
    op.execute("""
        CREATE FUNCTION drop_run_history_month(cutoff timestamptz) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = tasks, pg_temp SET lock_timeout = '2s' AS $$
        DECLARE
            first timestamp := (SELECT min(month) FROM run_history_months());
            name text := 'run_history_' || to_char(first, 'YYYY_MM');
            kept boolean;
            dropped bigint;
        BEGIN
            IF (first + interval '1 month') AT TIME ZONE 'UTC' > least(cutoff, now()) THEN
                RETURN NULL;
            END IF;
            LOCK TABLE run_history IN SHARE UPDATE EXCLUSIVE MODE;
            IF first <> (SELECT min(month) FROM run_history_months()) THEN
                RETURN 0;
            END IF;
            EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', name);
            EXECUTE format('SELECT count(*), coalesce(bool_or(finished_at >= $1), false) FROM %I', name)
                INTO dropped, kept USING cutoff;
            IF kept THEN
                RETURN NULL;
            END IF;
            ALTER TABLE run_history DETACH PARTITION run_history_before;
            EXECUTE format('DROP TABLE %I', name);
            EXECUTE format(
                'ALTER TABLE run_history ATTACH PARTITION run_history_before FOR VALUES FROM (MINVALUE) TO (%L)',
                run_history_bound(first + interval '1 month')
            );
            RETURN dropped;
        END
        $$
    """)
    op.execute("""
        DO $$
        DECLARE
            oldest timestamp := (
                SELECT to_timestamp(('x' || left(replace(min(id::text), '-', ''), 12))::bit(48)::bigint / 1000)
                    AT TIME ZONE 'UTC' FROM old_run_history
            );
            this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
            first timestamp := date_trunc('month', greatest(
                least(coalesce(oldest, this_month), this_month), this_month - interval '10 years'
            ));
        BEGIN
            EXECUTE format(
                'CREATE TABLE run_history_before PARTITION OF run_history FOR VALUES FROM (MINVALUE) TO (%L)',
                run_history_bound(first)
            );
            EXECUTE format('CREATE TABLE run_history_%s PARTITION OF run_history FOR VALUES FROM (%L) TO (%L)',
                to_char(first, 'YYYY_MM'), run_history_bound(first), run_history_bound(first + interval '1 month'));
            EXECUTE format('CREATE TABLE run_history_after PARTITION OF run_history FOR VALUES FROM (%L) TO (MAXVALUE)',
                run_history_bound(first + interval '1 month'));
            PERFORM make_run_history_months(2);
        END
        $$
    """)


def _create_sqlite_search() -> None:
    """What runs tell, a full-text index of it, and triggers that keep both and collect names.

    The texts stand in the order of the runs' ids: a text's number is the 48 bits of the id's millisecond and 15 more
    that count within it. What is told by more than 32 768 runs of one millisecond is not found.
    """
    op.execute("CREATE TABLE run_texts (number INTEGER PRIMARY KEY, id CHAR(32) NOT NULL UNIQUE, words TEXT NOT NULL)")
    op.execute(
        "CREATE VIRTUAL TABLE run_search "
        "USING fts5 (words, content = 'run_texts', content_rowid = 'number', tokenize = 'trigram')"
    )
    first = _milliseconds("NEW")
    add = f"""
        INSERT INTO run_texts (number, id, words)
        SELECT number, NEW.id, NEW.log_excerpt || char(10) || coalesce(json_extract(NEW.error, '$.message'), '')
        FROM (
            SELECT coalesce(max(number) + 1, {first}) AS number FROM run_texts
            WHERE number >= {first} AND number < {first} + 32768
        ) WHERE number < {first} + 32768
    """
    remove = "DELETE FROM run_texts WHERE id = OLD.id"
    tells = "{row}.log_excerpt <> '' OR {row}.error IS NOT NULL"
    changes = "UPDATE OF log_excerpt, error ON run_history"
    index = "INSERT INTO run_search (rowid, words) VALUES (NEW.number, NEW.words)"
    forget = "INSERT INTO run_search (run_search, rowid, words) VALUES ('delete', OLD.number, OLD.words)"
    # Triggers of one event have no order among them, so what an update removes goes before it.
    for name, event, when, body in (
        ("run_history_told", "AFTER INSERT ON run_history", tells.format(row="NEW"), add),
        ("run_history_untold", "AFTER DELETE ON run_history", tells.format(row="OLD"), remove),
        ("run_history_retold", f"BEFORE {changes}", tells.format(row="OLD"), remove),
        ("run_history_told_anew", f"AFTER {changes}", tells.format(row="NEW"), add),
        ("run_texts_indexed", "AFTER INSERT ON run_texts", "true", index),
        ("run_texts_forgotten", "AFTER DELETE ON run_texts", "true", forget),
    ):
        op.execute(f"CREATE TRIGGER {name} {event} WHEN {when} BEGIN {body}; END")
    for table in ("runs", "run_history"):
        op.execute(f"""
            CREATE TRIGGER {table}_name AFTER INSERT ON {table} WHEN NEW.reported
            BEGIN INSERT INTO run_names VALUES (NEW.task) ON CONFLICT DO NOTHING; END
        """)
    for name, event in (("new", "INSERT"), ("changed", "UPDATE OF title")):
        op.execute(f"""
            CREATE TRIGGER tasks_{name}_name AFTER {event} ON tasks
            BEGIN INSERT INTO run_names VALUES (substr(NEW.title, 1, 64)) ON CONFLICT DO NOTHING; END
        """)


def _milliseconds(row: str) -> str:
    """The first 12 of an id's hexadecimal digits as a number, times 32 768, in SQL."""
    digits = (
        f"(instr('123456789abcdef', substr({row}.id, {place + 1}, 1)) << {(11 - place) * 4 + 15})"
        for place in range(12)
    )
    return f"({' + '.join(digits)})"


def _create_small_tables() -> None:
    op.create_table(
        "dedupe_keys",
        sa.Column("created_by", Id, nullable=False),
        sa.Column("dedupe_key", sa.String(100), nullable=False),
        sa.Column("run_id", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("created_by", "dedupe_key", name="pk_dedupe_keys"),
    )
    op.create_table(
        "workers",
        sa.Column("id", Id, nullable=False),
        sa.Column("role", sa.String(50), nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("seen_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", "role", name="pk_workers"),
    )
    op.create_index("ix_workers_seen_at", "workers", ["seen_at"])
    op.create_table(
        "outbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )


def _fill() -> None:
    kept = "id, title, description, schedule_kind, schedule_expr, timezone, payload, priority, created_by, next_fire_at"
    op.execute(f"""
        INSERT INTO tasks ({kept}, schedule_anchor, dedupe_key, dedupe_window_seconds, max_retries, backoff_strategy,
            concurrency_key, misfire, overlap, role, status, paused_at, next_scheduled_for, created_at, updated_at)
        SELECT {kept}, created_at, '', 0, 3, 'exponential_jitter', '', 'run_once', 'allow', '',
            CASE WHEN status = 'active' AND schedule_kind <> 'manual' AND next_fire_at IS NULL
                THEN 'completed' ELSE status END,
            CASE WHEN status = 'paused' THEN updated_at END, next_fire_at, created_at, updated_at
        FROM old_tasks
    """)
    op.execute("""
        INSERT INTO occurrences (task_id, scheduled_for, outcome, reason, run_id, decided_at)
        SELECT task_id, scheduled_for, outcome, reason, run_id, created_at FROM old_occurrences
    """)
    shared = (
        "id, task_id, task, created_by, priority, due_at, started_at, attempt, payload, traceparent, created_at, "
        "updated_at"
    )
    added = (
        "batch_id, role, reported, retries, max_retries, backoff_strategy, concurrency_key, outputs_uri, log_excerpt, "
        "approver, approval_note"
    )
    no = "false" if op.get_bind().dialect.name == "postgresql" else "0"
    blank = f"'', '', {no}, 0, 3, 'exponential_jitter', '', '', '', '', ''"
    lease = "crashes, lease_token, lease_owner, lease_expires_at"
    op.execute(f"""
        INSERT INTO runs ({shared}, {added}, {lease}, payload_size, blocked)
        SELECT {shared}, {blank}, {lease}, length(CAST(payload AS TEXT)), {no} FROM old_runs
    """)
    op.execute(f"""
        INSERT INTO run_history ({shared}, {added}, finished_at, duration_ms, error, status, output)
        SELECT {shared}, {blank}, finished_at, duration_ms, error, status, output FROM old_run_history
    """)
    # Those of the tasks are collected already. Without WHERE, SQLite takes ON for a join.
    op.execute("""
        INSERT INTO run_names
        SELECT task FROM (SELECT task FROM run_history UNION SELECT task FROM runs) AS names WHERE true
        ON CONFLICT DO NOTHING
    """)


def _primary_key(table: str, column: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(column, name=f"pk_{table}")


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _partial(
    name: str, table: str, columns: list[str], where: str, sqlite_where: str = "", *, unique: bool = False
) -> None:
    """An index of some rows only; SQLite writes truth values as numbers."""
    op.create_index(
        name,
        table,
        columns,
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(sqlite_where or where),
    )
