"""The templates that come with Baton: the YAML files in `templates/`."""

from importlib.resources import files

import yaml

from services.workflows.definition import parse
from services.workflows.models.template import Definition


def shipped_definitions() -> tuple[Definition, ...]:
    """All of them, checked, by file name."""
    directory = files("services.workflows") / "templates"
    documents = sorted(
        (file for file in directory.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name
    )
    return tuple(parse(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in documents)
