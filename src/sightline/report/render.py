"""A page as one HTML file: no script, no network, nothing interpreted that a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sightline.core.audit_results import Audit, Comparison
from sightline.core.errors import MissingExtraError, UsageError
from sightline.core.results import Evaluation
from sightline.report.audit_page import audit_page
from sightline.report.audit_pictures import PictureSource
from sightline.report.page import page_view
from sightline.report.thumbnails import ImageBytes, stored_image
from sightline.store.disk import make_directory, write_file

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = ("report.html.jinja", "run.html.jinja", "parts.html.jinja", "audit.html.jinja")
STYLESHEET, AUDIT_STYLESHEET = "report.css", "audit.css"


def render_report(
    evaluations: Sequence[Evaluation],
    *,
    image_bytes: ImageBytes = stored_image,
    title: str | None = None,
) -> str:
    """Returns one self-contained HTML document over one or more evaluated runs.

    Args:
        evaluations: In the order they are shown; two or more are also compared side by side.
        image_bytes: Reads an image file by its path in the evaluation, or returns None.
        title: Heading of the page; derived from the runs if None.

    Raises:
        UsageError: No evaluation.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    if not evaluations:
        raise UsageError("No evaluation to report; at least one is required. Pass evaluated runs.")
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "report", "the HTML report")
    page = page_view(evaluations, image_bytes=image_bytes, title=title)
    return _environment().get_template("report.html.jinja").render(page=page) + "\n"


def write_report(
    evaluations: Sequence[Evaluation],
    path: Path,
    *,
    title: str | None = None,
    image_bytes: ImageBytes = stored_image,
) -> None:
    """Writes `render_report` to a file, whole or not at all.

    Raises:
        DiskError: The file cannot be written; an earlier one stays as it was.
    """
    document = render_report(evaluations, image_bytes=image_bytes, title=title).encode("utf-8")
    make_directory(path.parent)
    write_file(path, lambda file: file.append(memoryview(document)))


def write_audit_report(
    audits: Sequence[Audit],
    path: Path,
    *,
    title: str | None = None,
    comparison: Comparison | None = None,
) -> None:
    """Writes one self-contained HTML document over one or more audits, whole or not at all.

    Args:
        audits: In the order they are shown; two or more are also compared side by side.
        path: The file.
        title: Heading of the page; derived from the models if None.
        comparison: Verdicts on all of them together.

    Raises:
        UsageError: No audit.
        MissingExtraError: jinja2 or matplotlib is not installed.
        DiskError: The file cannot be written; an earlier one stays as it was.
    """
    if not audits:
        raise UsageError("No audit to report; at least one is required. Pass audited runs.")
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "report", "the HTML report")
    page = audit_page(audits, PictureSource(), title=title, comparison=comparison)
    document = _environment().get_template("audit.html.jinja").render(page=page) + "\n"
    make_directory(path.parent)
    content = document.encode("utf-8")
    write_file(path, lambda file: file.append(memoryview(content)))


def breakable(text: str) -> Markup:
    """Escapes a name and lets it break after underscores, colons and slashes."""
    from markupsafe import Markup, escape

    marked = str(escape(text))
    for sign in ("_", ":", "/"):
        marked = marked.replace(sign, f"{sign}<wbr>")
    return Markup(marked)  # noqa: S704 (escaped above)


def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    from sightline.report.charts import dash_array, marker_path, svg

    folder = resources.files("sightline.report")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in TEMPLATES}
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["svg"] = lambda figure: Markup(svg(figure))  # noqa: S704 (drawn by us)
    environment.filters["dash_array"] = dash_array
    environment.filters["marker_path"] = marker_path
    stylesheet = folder.joinpath(STYLESHEET).read_text(encoding="utf-8")
    environment.globals["stylesheet"] = Markup(stylesheet)  # noqa: S704 (a file of the package)
    audited = folder.joinpath(AUDIT_STYLESHEET).read_text(encoding="utf-8")
    environment.globals["audit_stylesheet"] = Markup(audited)  # noqa: S704 (a file of the package)
    return environment
