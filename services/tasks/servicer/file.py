"""FileService."""

from collections.abc import AsyncIterator
from typing import Any

from baton.tasks.v1 import file_service_pb2 as pb
from baton.tasks.v1 import file_service_pb2_grpc as rpc
from google.api import httpbody_pb2
from grpc.aio import ServicerContext

from services.chassis.database import Database
from services.tasks.operations import file as operations

_Context = ServicerContext[Any, Any]
_CHUNK = 256 * 1024


class FileServicer(rpc.FileServiceServicer):
    """Outputs that are too large for the record of a run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def PutFile(self, request: pb.PutFileRequest, context: _Context) -> pb.PutFileResponse:
        content = request.content
        uri = await self._database.transact(lambda connection, clock: operations.put_file(connection, content, clock))
        return pb.PutFileResponse(uri=uri)

    async def GetFile(self, request: pb.GetFileRequest, context: _Context) -> AsyncIterator[httpbody_pb2.HttpBody]:
        digest = request.digest
        content = await self._database.read(lambda connection, clock: operations.get_file(connection, digest))
        for start in range(0, len(content), _CHUNK):
            yield httpbody_pb2.HttpBody(content_type="application/json", data=content[start : start + _CHUNK])
