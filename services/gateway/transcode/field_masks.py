"""google.protobuf.FieldMask as text: the paths of fields, in snake_case as everywhere, separated by commas."""

import re

from google.protobuf.field_mask_pb2 import FieldMask

from services.gateway.transcode.faults import Faults

_PATH = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*")


def print_field_mask(message: FieldMask) -> str:
    """`name,pot.width`; empty for no paths."""
    return ",".join(message.paths)


def read_field_mask(message: FieldMask, value: object) -> None:
    """Takes what is printed."""
    paths = value.split(",") if isinstance(value, str) and value else []
    if not isinstance(value, str) or not all(map(_PATH.fullmatch, paths)):
        raise Faults.of("must be names of fields with commas between them")
    message.paths.extend(paths)
