"""What mkdocs does with a line `::: hwnas.search`: the docstring takes its place, of a function with its signature.

A verb's docstring lists its options, which are known when it is imported and not before.
"""

import inspect
import pydoc
import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with docstrings in it; an unknown name ends the build."""
    return re.sub(r"^::: (\S+)$", lambda match: documented(match[1]), markdown, flags=re.MULTILINE)


def documented(name: str) -> str:
    """Return the documentation of a module, a class or a function in Markdown."""
    thing = pydoc.locate(name)
    text = inspect.getdoc(thing)
    if not text:
        raise ValueError(f"{name} must have a docstring; got {thing!r}")
    names = ", ".join(inspect.signature(thing).parameters) if inspect.isfunction(thing) else ""
    head = f"`{name}({names})`\n\n" if names else ""
    return f"## {name}\n\n{head}```text\n{text}\n```"
