"""Builds gen/ from protos/: typed Python stubs, and the descriptors with their comments.

The stubs are not committed: generated code refuses to run on an older runtime than
it was built with, so it belongs to the environment. `make protos` calls this.
"""

import os
import shutil
import sys
from importlib import resources
from pathlib import Path

import grpc_tools
from google.api import http_pb2
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent
GEN = ROOT.parent / "gen"
# The whole contract, with comments: buf checks it, the gateway documents itself from it.
DESCRIPTORS = GEN / "baton" / "descriptors.binpb"


def write_validate_descriptor(path: Path) -> None:
    """Takes buf/validate/validate.proto out of the protovalidate wheel: what we compile is what it enforces."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    path.write_bytes(files.SerializeToString())


def run_protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        sys.exit(1)


def find_plugins_beside_this_python() -> None:
    """protoc looks for its plugins on PATH, where a virtual environment that is not activated is not."""
    programs = Path(sys.executable).parent
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"


def main() -> None:
    find_plugins_beside_this_python()
    shutil.rmtree(GEN, ignore_errors=True)
    DESCRIPTORS.parent.mkdir(parents=True)
    validate = GEN / "validate.binpb"
    write_validate_descriptor(validate)
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    inputs = [
        f"--descriptor_set_in={validate}",
        f"-I{ROOT}",
        f"-I{resources.files(grpc_tools) / '_proto'}",
        f"-I{Path(http_pb2.__file__).parent.parent.parent}",
    ]
    run_protoc(*inputs, f"--descriptor_set_out={DESCRIPTORS}", "--include_imports", "--include_source_info", *sources)
    messages = ["buf/validate/validate.proto", *sources]
    run_protoc(*inputs, f"--python_out={GEN}", f"--mypy_out=quiet,readable_stubs:{GEN}", *messages)
    services = [source for source in sources if source.endswith("_service.proto")]
    run_protoc(*inputs, f"--grpc_python_out={GEN}", f"--mypy_grpc_out=quiet,only_async:{GEN}", *services)
    validate.unlink()
    for package in ("baton", "buf"):
        (GEN / package / "py.typed").touch()


if __name__ == "__main__":
    main()
