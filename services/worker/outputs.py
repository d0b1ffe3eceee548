"""The outputs of one run's steps: what later steps can refer to, and where each is kept."""

from typing import Any

import orjson
from baton.tasks.v1 import run_pb2
from google.protobuf.struct_pb2 import Struct

from services.chassis import structs
from services.worker.failures import InputNotValid
from services.worker.files import Files
from services.worker.limits import MAX_FILE_BYTES, MAX_OUTPUT_BYTES


class Outputs:
    """What the steps of a run saved so far.

    Those in records have at most 64 KiB in all, for they travel with every lease; the others are files.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._saved: dict[str, Any] = {}
        self._bytes = 0
        self._recorded_bytes = 0

    def saved(self) -> dict[str, Any]:
        """By name. A copy: what a tool was given must not change under it when later steps save more."""
        return dict(self._saved)

    async def save(self, record: run_pb2.RunStep, output: Any, name: str) -> None:
        """Notes an output in its record, or where it is; and for later steps under its name.

        Raises InputNotValid when the run has saved more than 4 MiB then.
        """
        content = orjson.dumps(output)
        is_small = self._recorded_bytes + len(content) <= MAX_OUTPUT_BYTES
        await self._note(record, output, content, is_small)
        self._recorded_bytes += len(content) if is_small else 0
        self._save(name, output, len(content))

    async def record(self, record: run_pb2.RunStep, output: Any) -> None:
        """Notes an output that no later step refers to."""
        content = orjson.dumps(output)
        await self._note(record, output, content, len(content) <= MAX_OUTPUT_BYTES)

    def remember(self, output: Any, name: str) -> None:
        """Saves for later steps what a record tells in other words. Raises InputNotValid like `save`."""
        self._save(name, output, len(orjson.dumps(output)))

    async def recall(self, record: run_pb2.RunStep, name: str) -> None:
        """Saves again the output that an earlier attempt recorded."""
        output = await self.of(record)
        size = len(orjson.dumps(output))
        self._recorded_bytes += 0 if record.output_uri else size
        self._save(name, output, size)

    async def of(self, record: run_pb2.RunStep) -> Any:
        """The output that a record has, wherever it is."""
        return await self._files.get(record.output_uri) if record.output_uri else structs.from_value(record.output)

    async def of_run(self) -> tuple[Struct | None, str]:
        """The output of the whole run: itself, or where it is when it has more than 64 KiB."""
        content = orjson.dumps(self._saved)
        if len(content) > MAX_OUTPUT_BYTES:
            return None, await self._files.put(content)
        return structs.to_struct(self._saved) if self._saved else None, ""

    def forget(self) -> None:
        """Forgets everything: it cannot be recorded."""
        self._saved.clear()

    async def _note(self, record: run_pb2.RunStep, output: Any, content: bytes, is_small: bool) -> None:
        if is_small:
            record.output.CopyFrom(structs.to_value(output))
        else:
            record.output_uri = await self._files.put(content)

    def _save(self, name: str, output: Any, size: int) -> None:
        if self._bytes + size > MAX_FILE_BYTES:
            raise InputNotValid(f"the saved outputs have more than {MAX_FILE_BYTES} bytes in all")
        self._bytes += size
        self._saved[name] = output
