"""What each method declares about itself in the contract (baton/api/v1/annotations.proto)."""

from collections.abc import Iterable, Mapping

from baton.api.v1 import annotations_pb2
from google.protobuf.descriptor import FileDescriptor

from services.chassis.config import ConfigurationError

# The standard health service says nothing of anybody's data: it is open, on every process.
HEALTH_PREFIX = "/grpc.health.v1.Health/"


Policies = Mapping[str, annotations_pb2.MethodPolicy]
"""The policy of each method, by its path `/package.Service/Method`."""


def policies(files: Iterable[FileDescriptor]) -> Policies:
    """The policy of every method in `files`.

    Raises ConfigurationError when one declares neither a scope nor an access, or would change something without an
    audit: closed by default.
    """
    found = {
        f"/{service.full_name}/{method.name}": method.GetOptions().Extensions[annotations_pb2.policy]
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    for path, policy in found.items():
        if not policy.scope and not policy.access:
            raise ConfigurationError(f"{path} declares no scope: add option (baton.api.v1.policy) to its method")
        if policy.mutates and not (policy.audit_exempt or policy.audit_action):
            raise ConfigurationError(f"{path} changes something: add audit_action to its policy, or audit_exempt")
    return found
