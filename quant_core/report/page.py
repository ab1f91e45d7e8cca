"""What every page written here shares: one script, one style, a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quant_core.report.figures import Figures

_BUILT = Path(__file__).parent / "built"


def render_page(template: str, figures: Figures, **values: Any) -> str:
    """Fill a template of this package into a page that needs no other file and no network.

    Layer and file names are untrusted: the template escapes them, figures carry them as JSON that cannot end its
    element, and the page's own content security policy allows no script and no style but the two written here.

    Args:
        template: Name of the template.
        figures: What the charts show.
        **values: What else the template names.

    Returns:
        HTML.
    """
    environment = Environment(
        loader=PackageLoader("quant_core.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    style, script = (built_file(name) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(
        figures=_embed(figures),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=Markup(policy),  # noqa: S704
        **values,
    )


def built_file(name: str) -> str:
    """Read a file that was built from the sources in `web`.

    Args:
        name: `report.js` or `report.css`.

    Returns:
        Its text.
    """
    return (_BUILT / name).read_text(encoding="utf-8")


def _embed(figures: Figures) -> Markup:
    """JSON that is safe between script tags: no character in it can end the element or begin a comment."""
    # ASCII: line separators are escaped too.
    text = json.dumps(figures, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
