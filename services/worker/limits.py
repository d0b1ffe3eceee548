"""What the worker keeps of what runs do."""

MAX_OUTPUT_BYTES = 64 * 1024
"""Bytes of JSON that stay in the record of a step or a run; more than that goes to a file."""
MAX_FILE_BYTES = 4 * 1024 * 1024
"""Bytes of JSON that one step's output may have, and all that a run saved together."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""How long a tool may ask to be left alone; the tasks service waits no longer."""
