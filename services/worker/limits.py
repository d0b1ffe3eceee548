"""What the worker keeps of what runs do."""

MAX_OUTPUT_BYTES = 64 * 1024
"""Bytes of JSON that one step's output may have, and all that a run saved together."""
