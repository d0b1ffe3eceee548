"""Matching events with the tasks that wait for them: each task gets an outcome, and a run if that is the outcome."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.pipeline.cel import MAX_WORK, Filter, Subject, compile_filter
from services.pipeline.errors import ExpressionError, clip
from services.tasks.models.event import MAX_DEPTH, Delivery, DeliveryOutcome, Event, Origin, Trigger
from services.tasks.models.run import NewRun
from services.tasks.models.task import Overlap, Task, TaskStatus
from services.tasks.operations.new_run import new_run
from services.tasks.store import dedupe as dedupe_store
from services.tasks.store import event as store
from services.tasks.store import queue as queue_store
from services.tasks.store import task as task_store
from services.tasks.store import topic as topic_store
from services.tasks.store import webhook_delivery as webhook_store
from services.tasks.store.topic import Listener

BATCH = 1000
"""How many tasks events are matched with in one transaction."""
_EVENTS = 100
# Payloads of 1 MiB each are not all held in memory, and written, at once.
_MAX_BYTES = 16 * 1024 * 1024
# Nobody waits longer than half a second or so for filters: PostgreSQL ends a transaction that does nothing for three.
_MAX_FILTER_WORK = 2 * MAX_WORK
# What it takes to prepare a byte of an event for them.
_PREPARING = 300
_FEW = 16
_LONGEST_REASON = 400
NewTrace = Callable[[str, str], str]
"""Begins a trace for a task's run, linked to a traceparent, and answers its own."""


@dataclass(frozen=True)
class Dispatched:
    """What one round of matching did."""

    events: list[Event]
    """Those that were matched with any task, or with all, as they are now."""
    deliveries: list[Delivery]
    runs: list[NewRun]
    more: bool = False
    """Whether there is more to match right now."""


def dispatch_pending(connection: Connection, new_trace: NewTrace, clock: Clock) -> Dispatched:
    """Matches the oldest events that are still to be matched, and stores how far that came.

    What has been matched with all tasks is for the webhooks, too.
    """
    pending = store.lock_undispatched(connection, _EVENTS, _MAX_BYTES)
    waiting = {topic: topic_store.listeners(connection, topic) for topic in {event.topic for event in pending}}
    done = dispatch(connection, pending, waiting, new_trace, clock.now())
    store.save_progress(connection, done.events)
    store.add_deliveries(connection, done.deliveries)
    complete = [event for event in done.events if event.dispatched_at is not None]
    webhook_store.add_deliveries(connection, complete, clock.now())
    more = len(pending) == _EVENTS or len(done.events) < len(pending) or _is_unfinished(done.events)
    return replace(done, more=more)


def dispatch(
    connection: Connection,
    events: Sequence[Event],
    waiting: Mapping[str, Sequence[Listener]],
    new_trace: NewTrace,
    now: datetime,
) -> Dispatched:
    """Matches events with the tasks that wait for their topics, from where each has come, as far as one round goes.

    Queues the runs; what became of the events and of the tasks is for the caller to store. No event is left out before
    those ahead of it are matched with all tasks.
    """
    pairs = [
        (event, listener)
        for event in events
        for listener in waiting[event.topic]
        if event.dispatched_to is None or listener.task_id > event.dispatched_to
    ]
    matched = list(_judged(connection, pairs[:BATCH]))
    deliveries, runs = _start(connection, [judged for judged in matched if judged.task], new_trace, now)
    queue_store.add_runs(connection, runs, now)
    left = {event.id for event, _ in pairs[len(matched) :]}
    done = _advanced(events, matched, deliveries, left, now)
    return Dispatched(done, deliveries, runs)


@dataclass(frozen=True)
class _Judged:
    """An event and a task that waits for it."""

    event: Event
    task_id: str
    task: Task | None
    """None when it has gone, or waits for something else by now."""
    outcome: DeliveryOutcome = DeliveryOutcome.RAN
    """As far as the two alone tell."""
    reason: str = ""


def _judged(connection: Connection, pairs: Sequence[tuple[Event, Listener]]) -> Iterator[_Judged]:
    """The pairs with what becomes of each, as many as one round has room for, and one at least."""
    chosen = _within(connection, pairs)
    # Whoever pauses or cancels a task would not see a run that is not there yet.
    tasks = task_store.keep_tasks(connection, {listener.task_id for _, listener in chosen})
    questions = _Questions(_MAX_FILTER_WORK)
    for event, listener in chosen:
        task = tasks.get(listener.task_id)
        if task is None or not task.waits_for(event.topic):
            yield _Judged(event, listener.task_id, None)
        elif task.status is TaskStatus.PAUSED:
            yield _Judged(event, task.id, task, DeliveryOutcome.PAUSED, "the task was paused")
        elif not questions.has_room(event, task):
            return
        else:
            outcome, reason = questions.ask(event, task)
            yield _Judged(event, task.id, task, outcome, reason)


def _within(connection: Connection, pairs: Sequence[tuple[Event, Listener]]) -> list[tuple[Event, Listener]]:
    """The first of the pairs, as many as the payloads of whose runs may be in memory at once."""
    task_ids = {listener.task_id for _, listener in pairs}
    if len(pairs) <= _FEW:
        return list(pairs)
    sizes, room = topic_store.payload_sizes(connection, task_ids), _MAX_BYTES
    chosen: list[tuple[Event, Listener]] = []
    for event, listener in pairs:
        room -= sizes.get(listener.task_id, 0) + event.payload_bytes
        if chosen and room < 0:
            break
        chosen.append((event, listener))
    return chosen


@dataclass
class _Questions:
    """Filters, and what may still be spent on them."""

    _left: int
    _asked: int = 0
    _subjects: dict[str, Subject] = field(default_factory=dict)

    def has_room(self, event: Event, task: Task) -> bool:
        """Whether the task's filter may be asked in this round; the first one always may."""
        question = self._read(task)
        work = question.work(self._subject(event)) if isinstance(question, Filter) else 0
        return not self._asked or min(work, MAX_WORK) <= self._left

    def ask(self, event: Event, task: Task) -> tuple[DeliveryOutcome, str]:
        """What becomes of an event as far as its task's filter, and its depth, tell."""
        question, subject = self._read(task), self._subject(event)
        try:
            if isinstance(question, ExpressionError):
                raise question
            if question is not None:
                self._spend(question, subject)
                if not question.holds(subject):
                    return DeliveryOutcome.FILTERED, clip(f"the filter is not true: {task.event_filter}", 300)
        except ExpressionError as error:
            return DeliveryOutcome.FILTER_ERROR, f"the filter {error}"[:_LONGEST_REASON]
        if event.is_too_deep:
            reason = f"more than {MAX_DEPTH} events followed from one another: a loop is cut here"
            return DeliveryOutcome.DEPTH_EXCEEDED, reason
        return DeliveryOutcome.RAN, ""

    def _spend(self, question: Filter, subject: Subject) -> None:
        preparing = 0 if "activation" in vars(subject) else subject.size * _PREPARING
        self._left -= preparing + min(question.work(subject), MAX_WORK)
        self._asked += 1

    def _read(self, task: Task) -> Filter | ExpressionError | None:
        try:
            return compile_filter(task.event_filter) if task.event_filter else None
        except ExpressionError as error:
            # It could be read when it was stored.
            return error

    def _subject(self, event: Event) -> Subject:
        return self._subjects.setdefault(event.id, Subject(event.topic, event.payload))


def _start(
    connection: Connection, matched: Sequence[_Judged], new_trace: NewTrace, now: datetime
) -> tuple[list[Delivery], list[NewRun]]:
    """What becomes of each of the pairs, and the runs that this makes."""
    starter = _Starter(connection, new_trace, now, _live_runs(connection, matched))
    # Whoever takes several dedupe keys takes them in one order, so that nobody waits in a circle; those of one key in
    # the order of the events.
    in_order = sorted(range(len(matched)), key=lambda index: starter.order(matched[index]))
    deliveries = {index: starter.deliver(matched[index]) for index in in_order}
    return [deliveries[index] for index in range(len(matched))], starter.runs


def _live_runs(connection: Connection, matched: Sequence[_Judged]) -> dict[str, str]:
    """An unfinished run of each task that skips what overlaps, and that nobody else makes a run of meanwhile."""
    choosy = {judged.task_id for judged in matched if judged.task and judged.task.overlap is Overlap.SKIP}
    if not choosy:
        return {}
    task_store.hold_tasks(connection, choosy)
    return queue_store.live_runs_of(connection, choosy)


@dataclass
class _Starter:
    """Makes the runs of one round."""

    connection: Connection
    new_trace: NewTrace
    now: datetime
    live: dict[str, str]
    """An unfinished run of each task that skips what overlaps."""
    runs: list[NewRun] = field(default_factory=list)

    def order(self, judged: _Judged) -> tuple[str, str]:
        assert judged.task is not None
        return judged.task.created_by, judged.task.dedupe_key

    def deliver(self, judged: _Judged) -> Delivery:
        task, event = judged.task, judged.event
        assert task is not None
        if judged.outcome is not DeliveryOutcome.RAN:
            return self._delivery(judged, judged.outcome, judged.reason, None)
        if task.overlap is Overlap.SKIP and (earlier := self.live.get(task.id)):
            reason = "the run before it was not finished"
            return self._delivery(judged, DeliveryOutcome.SKIPPED_OVERLAP, reason, earlier)
        run = new_run(
            task,
            due_at=self.now,
            traceparent=self._traceparent(event, task),
            trigger=Trigger(event.id, event.topic, event.payload, event.depth),
        )
        window = timedelta(seconds=task.dedupe_window_seconds)
        holder = dedupe_store.take(self.connection, task.created_by, task.dedupe_key, run.id, window, self.now)
        if holder is not None:
            reason = "a run with the same dedupe key is not older than the window"
            return self._delivery(judged, DeliveryOutcome.SUPPRESSED_DUPLICATE, reason, holder)
        self.runs.append(run)
        if task.overlap is Overlap.SKIP:
            self.live[task.id] = run.id
        return self._delivery(judged, DeliveryOutcome.RAN, "", run.id)

    def _traceparent(self, event: Event, task: Task) -> str:
        """What a caller published, or published anew, goes on in the caller's trace."""
        if event.origin is Origin.EXTERNAL or event.replay_of:
            return event.traceparent
        return self.new_trace(task.id, event.traceparent)

    def _delivery(self, judged: _Judged, outcome: DeliveryOutcome, reason: str, run_id: str | None) -> Delivery:
        return Delivery(judged.event.id, judged.task_id, outcome, reason, run_id, self.now)


def _advanced(
    events: Sequence[Event], matched: Sequence[_Judged], deliveries: Sequence[Delivery], left: set[str], now: datetime
) -> list[Event]:
    """The events that have come further, or to their end."""
    last = {judged.event.id: judged.task_id for judged in matched}
    told: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        told.setdefault(delivery.event_id, []).append(delivery)
    return [
        replace(
            event,
            dispatched_at=None if event.id in left else now,
            dispatched_to=last.get(event.id, event.dispatched_to),
            matched_tasks=event.matched_tasks + len(told.get(event.id, ())),
            triggered_runs=event.triggered_runs
            + sum(delivery.outcome is DeliveryOutcome.RAN for delivery in told.get(event.id, ())),
        )
        for event in events
        if event.id in last or event.id not in left
    ]


def _is_unfinished(events: Sequence[Event]) -> bool:
    return any(event.dispatched_at is None for event in events)
