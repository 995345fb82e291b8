"""Write pages as single HTML files: escaped templates, inlined CSS and JavaScript, a content-security policy."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fashion_hydra.plots.painted_masks import colour
from fashion_hydra.utils.files import atomic_write

_TEMPLATES = Path(__file__).parent


def write_page(path: Path, folder: str, values: Mapping[str, Any]) -> None:
    """Render a page's template into a file, streamed and written atomically.

    Args:
        path: HTML file; missing parent folders are created.
        folder: template folder with the page's `page.html`, which extends `base.html`. Its `page.css` and `page.js`,
            if present, are appended to the shared ones.
        values: template variables, escaped in the output. Iterators are consumed while the page is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    style, script = _assets(folder, "page.css"), _assets(folder, "page.js")
    template = make_environment().get_template(f"{folder}/page.html")
    pieces = template.generate(**values, style=style, script=script, policy=content_policy(style, script))
    with atomic_write(path, "wb") as stream:
        for piece in pieces:
            stream.write(piece.encode(errors="replace"))


def make_environment() -> jinja2.Environment:
    """Return the Jinja environment of all templates: values are escaped, and an undefined name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["zip"] = zip
    environment.filters |= {"thousands": "{:,}".format, "colour": css_colour}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def content_policy(style: str, script: str) -> str:
    """Return a policy that allows one stylesheet, one script and embedded images, but no requests.

    The policy is a second line of defence: even an unescaped name could not run a script.

    Args:
        style: content of the page's style element.
        script: content of the page's script element.
    """
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"script-src '{_digest(script)}'; style-src 'unsafe-inline'; style-src-elem '{_digest(style)}'; "
        "style-src-attr 'unsafe-inline'"
    )


def css_colour(category: int) -> str:
    """Return a category's colour in CSS notation, `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour(category))


def _assets(folder: str, name: str) -> Markup:
    """Concatenate the shared asset and the page's own asset of this name, marked as safe."""
    paths = (_TEMPLATES / name, _TEMPLATES / folder / name)
    return Markup("".join(path.read_text(encoding="utf-8") for path in paths if path.is_file()))


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
