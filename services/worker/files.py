"""Outputs that are too large for a record, kept by the tasks service."""

from typing import Any

import orjson
from baton.tasks.v1 import file_service_pb2 as pb
from baton.tasks.v1 import file_service_pb2_grpc as rpc

from services.worker.patience import ANSWER_SECONDS, until_answered


class Files:
    """Puts JSON values into files and gets them back."""

    def __init__(self, stub: rpc.FileServiceStub) -> None:
        self._stub = stub

    async def put(self, content: bytes) -> str:
        """Keeps JSON; answers where it is. Raises ServiceError when it can never be kept."""
        request = pb.PutFileRequest(content=content)
        response = await until_answered(lambda: self._stub.PutFile(request, timeout=ANSWER_SECONDS))
        return response.uri

    async def get(self, uri: str) -> Any:
        """The value that is kept there. Raises ServiceError when it is gone."""
        request = pb.GetFileRequest(digest=uri.rpartition("/")[2])
        return orjson.loads(await until_answered(lambda: self._read(request)))

    async def _read(self, request: pb.GetFileRequest) -> bytes:
        return b"".join([chunk.data async for chunk in self._stub.GetFile(request, timeout=ANSWER_SECONDS)])
