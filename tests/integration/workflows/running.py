"""The workflows service in the test's own process."""

from dataclasses import dataclass

from services.workflows.service import Service
from tests.support.grpc import Signer


@dataclass
class Workflows:
    """A running service and what a test needs around it."""

    service: Service
    address: str
    signer: Signer
