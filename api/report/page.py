"""A template of this package or of the demonstration's, filled in."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from api.sizes import readable_bytes


def page(template: str, context: dict[str, Any]) -> str:
    """One self-contained HTML page."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("api.report", "."), PackageLoader("api.demo", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = readable_bytes
    return environment.get_template(template).render(context)
