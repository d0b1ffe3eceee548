"""Contracts that no context owns, compiled when a test first asks for one."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import baton
import grpc_tools


@dataclass(frozen=True)
class Contract:
    """The two modules made of one proto."""

    messages: ModuleType
    stubs: ModuleType

    @property
    def descriptor(self) -> Any:
        return self.messages.DESCRIPTOR


@cache
def contract(package: str) -> Contract:
    """The contract `<package>_service.proto` beside this file."""
    name = f"{package}_service"
    source = Path(__file__).parent / f"{name}.proto"
    with tempfile.TemporaryDirectory() as directory:
        _compile(source, Path(directory))
        sys.path.insert(0, directory)
        try:
            return Contract(import_module(f"{name}_pb2"), import_module(f"{name}_pb2_grpc"))
        finally:
            sys.path.remove(directory)


def _compile(source: Path, target: Path) -> None:
    """Against the contracts that Baton itself was built from."""
    arguments = [
        f"--descriptor_set_in={Path(next(iter(baton.__path__))) / 'descriptors.binpb'}",
        f"-I{source.parent}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        str(source),
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)
