"""Writes the document of the contracts that Baton ships, for people to review: `make openapi` keeps it in docs/.

It bears the version of the contracts in place of Baton's, so that it changes with them alone.
"""

import sys

import orjson
import yaml

from services.gateway.descriptors import load_methods
from services.gateway.documentation import shipped_comments, shipped_packages
from services.gateway.openapi.document import describe

_VERSION = "v1"
_WIDTH = 120


class _Lines(yaml.SafeDumper):
    """Gives every line of a text a line of its own, so that a difference shows what differs."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Lines.add_representer(str, _Lines.represent_text)


def written() -> str:
    """The document as YAML, sorted."""
    document = describe(load_methods(shipped_packages()), shipped_comments(), _VERSION)
    # By way of JSON, which knows nothing of parts that are the same object and would be written as references.
    return yaml.dump(orjson.loads(orjson.dumps(document)), Dumper=_Lines, allow_unicode=True, width=_WIDTH)


if __name__ == "__main__":
    sys.stdout.write(written())
