"""What can go wrong with templates, one class for each fact."""

from services.chassis.errors import NotFound


class TemplateNotFound(NotFound):
    """There is no template of this name, or not this version of it."""

    def __init__(self, name: str, version: int | None) -> None:
        which = f"template {name!r}" if version is None else f"version {version} of template {name!r}"
        super().__init__(f"{which} not found", reason="TEMPLATE_NOT_FOUND", metadata={"name": name})
