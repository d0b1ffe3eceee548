"""What the worker keeps of what runs do."""

MAX_OUTPUT_BYTES = 64 * 1024
"""Bytes of JSON that one step's output may have, and all that a run saved together."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""How long a tool may ask to be left alone; the tasks service waits no longer."""
