"""Lines: the live runs with the same role and concurrency key, of which one at most is under way.

Of each line one run is not `blocked`: the one that is leased or else the first, whom the next claim takes. All others
are kept out of the claim's index, so that a claim never walks through a line, however long.

Whoever changes runs of a line holds the line first and settles it afterwards, in the same transaction. Lines are held
before rows are locked, so that nobody who waits for a line keeps a row that its holder needs.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
    true,
    union_all,
    update,
)

from services.tasks.store import batch
from services.tasks.store.batch import per_engine
from services.tasks.store.tables import runs

Line = tuple[str, str]
"""Role and concurrency key."""

AGING = timedelta(seconds=60)
"""How much earlier a run counts as due for each level of priority: so long does it take to age by one level."""
LINE: batch.Columns = {"role": String(), "concurrency_key": String()}
PRIORITIES = range(1, 10)
# As it is in the indexes: with a parameter in its place they would not be used.
HAS_KEY = runs.c.concurrency_key != literal_column("''")
WAITS = and_(runs.c.paused_at.is_(None), runs.c.reported_status.is_(None))
"""Neither paused nor awaiting an approval."""


def urgency(run: Row[Any]) -> tuple[datetime, str]:
    """What due runs are ordered by: a run becomes more urgent by one level of priority a minute."""
    return run.due_at + run.priority * AGING, run.id


def lines_of(rows: Iterable[Row[Any]]) -> set[Line]:
    """The lines that runs stand in; most stand in none."""
    return {(row.role, row.concurrency_key) for row in rows if row.concurrency_key}


def hold_lines_of(connection: Connection, run_ids: Collection[str]) -> None:
    """Holds the lines of runs until the end of the transaction."""
    if run_ids and batch.is_postgres(connection):
        connection.execute(_HOLD_LINES_OF_RUNS, batch.ids(connection, run_ids))


def hold_free_lines_of(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Holds those lines of runs that nobody else holds right now; answers the runs that stand in these, or in none."""
    if not run_ids or not batch.is_postgres(connection):
        return list(run_ids)
    tried = connection.execute(_HOLD_FREE_LINES_OF_RUNS, batch.ids(connection, run_ids))
    return [row.id for row in tried if row.is_held]


def hold_lines_of_task(connection: Connection, task_id: str) -> None:
    """Holds the lines that the runs of a task stand in until the end of the transaction."""
    batch.use_indexes(connection)
    if batch.is_postgres(connection):
        connection.execute(_HOLD_LINES_OF_TASK, {"task_id": task_id})


def hold_overtaken(connection: Connection, heads: Mapping[Line, Row[Any]], now: datetime) -> set[Line]:
    """Holds the lines in which somebody who has become due is more urgent than the head; answers which these are.

    The heads are due and locked, so nobody is waited for: a line that somebody else holds keeps its head.
    """
    waiting = _foremost_waiting(connection, list(heads))
    overtaken = [line for line, others in waiting.items() if _first([*others, heads[line]], now) is not heads[line]]
    if not overtaken or not batch.is_postgres(connection):
        return set(overtaken)
    tried = connection.execute(_HOLD_FREE, batch.rows(connection, LINE, overtaken))
    return {(row.role, row.concurrency_key) for row in tried if row.is_held}


def settle(connection: Connection, lines: Collection[Line], now: datetime) -> set[str]:
    """Sees to it that each line has its head; answers the roles that have a new one.

    The head is the run that is leased; or else, of those that are neither paused nor awaiting an approval, the most
    urgent one that is due; or else the one that is due first.
    """
    if not lines:
        return set()
    batch.use_indexes(connection)
    wanted = batch.rows(connection, LINE, sorted(lines))
    if batch.is_postgres(connection):
        connection.execute(_HOLD, wanted)
    heads = {(row.role, row.concurrency_key): row for row in connection.execute(_heads(connection), wanted)}
    unsettled = [line for line in lines if line not in heads or heads[line].lease_token is None]
    waiting = _foremost_waiting(connection, unsettled)
    firsts = {line: _first([*waiting[line], *_unless_kept_back(heads.get(line))], now) for line in unsettled}
    changed = {line for line, first in firsts.items() if first != heads.get(line)}
    leased_meanwhile = _demote(connection, {line: heads[line].id for line in changed if line in heads})
    elected = {line: first.id for line in changed - leased_meanwhile if (first := firsts[line]) is not None}
    if elected:
        connection.execute(_elect(connection), batch.ids(connection, elected.values()))
    return {role for role, _ in elected}


def _foremost_waiting(connection: Connection, lines: Sequence[Line]) -> dict[Line, list[Row[Any]]]:
    """Of each line the first of each priority among those who are blocked."""
    found: dict[Line, list[Row[Any]]] = defaultdict(list)
    if lines:
        for row in connection.execute(_waiting(connection), batch.rows(connection, LINE, lines)):
            found[row.role, row.concurrency_key].append(row)
    return found


def _unless_kept_back(head: Row[Any] | None) -> list[Row[Any]]:
    return [head] if head and head.paused_at is None and head.reported_status is None else []


def _first(line: Sequence[Row[Any]], now: datetime) -> Row[Any] | None:
    due = [run for run in line if run.due_at <= now]
    if due:
        return min(due, key=urgency)
    return min(line, key=lambda run: (run.due_at, run.id), default=None)


def _demote(connection: Connection, heads: dict[Line, str]) -> set[Line]:
    """Sends heads back into their lines; answers the lines whose head has been leased meanwhile, and so remains it."""
    if not heads:
        return set()
    demoted = set(connection.scalars(_demotion(connection), batch.ids(connection, heads.values())))
    return {line for line, head in heads.items() if head not in demoted}


def _line_lock(role: ColumnElement[str], key: ColumnElement[str]) -> ColumnElement[int]:
    """The number that stands for a line among the advisory locks. That two lines share one does no harm."""
    return func.hashtextextended(key, func.hashtext(role))


def _hold(numbers: Select[Any]) -> Select[Any]:
    """Takes the locks in the order of their numbers, as everybody does, so that nobody waits in a circle."""
    in_order = numbers.distinct().order_by("number").subquery()
    return select(func.pg_advisory_xact_lock(in_order.c.number))


def _hold_given() -> Select[Any]:
    given = batch.given(LINE, True)
    return _hold(select(_line_lock(given.c.role, given.c.concurrency_key).label("number")))


def _hold_lines_where(condition: ColumnElement[bool]) -> Select[Any]:
    number = _line_lock(runs.c.role, runs.c.concurrency_key).label("number")
    return _hold(select(number).where(condition, HAS_KEY))


def _hold_free_given() -> Select[Any]:
    given = batch.given(LINE, True)
    is_held = func.pg_try_advisory_xact_lock(_line_lock(given.c.role, given.c.concurrency_key))
    return select(*given.c, is_held.label("is_held"))


def _hold_free_lines() -> Select[Any]:
    is_held = func.pg_try_advisory_xact_lock(_line_lock(runs.c.role, runs.c.concurrency_key))
    return select(runs.c.id, case((HAS_KEY, is_held), else_=true()).label("is_held")).where(
        batch.among(runs.c.id, True)
    )


_HOLD = _hold_given()
_HOLD_FREE = _hold_free_given()
_HOLD_LINES_OF_RUNS = _hold_lines_where(batch.among(runs.c.id, True))
_HOLD_FREE_LINES_OF_RUNS = _hold_free_lines()
_HOLD_LINES_OF_TASK = _hold_lines_where(runs.c.task_id == bindparam("task_id"))
_SEEN = [
    runs.c[name]
    for name in (
        "id",
        "role",
        "concurrency_key",
        "priority",
        "due_at",
        "lease_token",
        "paused_at",
        "reported_status",
    )
]


@per_engine
def _heads(for_postgres: bool) -> Select[Any]:
    given = batch.given(LINE, for_postgres)
    heads = select(*_SEEN).where(is_in(runs, given), HAS_KEY, ~runs.c.blocked)
    return _one_each(given, heads, for_postgres)


@per_engine
def _waiting(for_postgres: bool) -> Select[Any]:
    given = batch.given(LINE, for_postgres)
    levels = union_all(*(select(literal_column(str(level)).label("level")) for level in PRIORITIES)).subquery("levels")
    waiting = select(*_SEEN).where(is_in(runs, given), runs.c.priority == levels.c.level, WAITS, runs.c.blocked)
    return _one_each(given.join(levels, true()), waiting.order_by(runs.c.due_at, runs.c.id), for_postgres)


def is_in(table: FromClause, line: FromClause) -> ColumnElement[bool]:
    return and_(table.c.role == line.c.role, table.c.concurrency_key == line.c.concurrency_key)


def _one_each(places: FromClause, run: Select[Any], for_postgres: bool) -> Select[Any]:
    """The first run at each of the places; each is looked for by itself, so that no plan reads all of the runs."""
    if for_postgres:
        first = run.limit(1).correlate_except(runs).lateral("first")
        return select(*first.c).select_from(places.join(first, true()))
    # SQLite has no LATERAL.
    first_id = run.with_only_columns(runs.c.id).limit(1).correlate_except(runs).scalar_subquery()
    found = runs.alias("found")
    seen = [found.c[column.name] for column in _SEEN]
    return select(*seen).select_from(places.join(found, found.c.id == first_id))


@per_engine
def _demotion(for_postgres: bool) -> Any:
    return (
        update(runs)
        .where(batch.among(runs.c.id, for_postgres), runs.c.lease_token.is_(None))
        .values(blocked=True)
        .returning(runs.c.id)
    )


@per_engine
def _elect(for_postgres: bool) -> Any:
    return update(runs).where(batch.among(runs.c.id, for_postgres)).values(blocked=False)
