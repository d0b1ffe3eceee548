"""Schedules: which instants a task fires at. Fire times are computed here, in Python, and stored in UTC."""

from services.tasks.models.schedule.due import CAP, GRACE, WINDOW, Due, Span, due_times
from services.tasks.models.schedule.fault import ScheduleFault
from services.tasks.models.schedule.fire_times import FireTime, fire_times
from services.tasks.models.schedule.reading import Schedule, is_timezone, parse_schedule

__all__ = [
    "CAP",
    "GRACE",
    "WINDOW",
    "Due",
    "FireTime",
    "Schedule",
    "ScheduleFault",
    "Span",
    "due_times",
    "fire_times",
    "is_timezone",
    "parse_schedule",
]
