"""TemplateService."""

from typing import Any

from baton.workflows.v1 import template_service_pb2, template_service_pb2_grpc
from grpc.aio import ServicerContext

from services.chassis.database import Database
from services.workflows.convert import template as convert
from services.workflows.operations import template as operations

_Context = ServicerContext[Any, Any]


class TemplateServicer(template_service_pb2_grpc.TemplateServiceServicer):
    """The templates that workflows follow."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetTemplate(
        self, request: template_service_pb2.GetTemplateRequest, context: _Context
    ) -> template_service_pb2.GetTemplateResponse:
        template = await self._database.read(
            lambda connection, clock: operations.get_template(
                connection, name=request.name, version=convert.version(request)
            )
        )
        return template_service_pb2.GetTemplateResponse(template=convert.to_template(template))
