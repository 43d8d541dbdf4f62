"""HTML out of nested calls: whatever is not `Markup` already is escaped."""

import html

VOID = ("br", "img", "meta")


class Markup(str):
    """Text that is HTML already. Only `tag`, `join` and `raw` make it."""

    __slots__ = ()


def raw(text):
    """`text` as it stands, for what this package itself wrote."""
    return Markup(text)


def escape(value):
    """`value` as `Markup`; what is no `Markup` becomes text that the page shows."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(str(value)))


def join(*parts):
    """The parts one after the other; lists are flattened, None is left out.

    Args:
        parts: `Markup`, other values, which are escaped, or iterables of such that are
            no strings.
    """
    found = []
    for part in parts:
        if part is None:
            continue
        if isinstance(part, (list, tuple)):
            part = join(*part)
        found.append(escape(part))
    return Markup("".join(found))


def tag(name, *children, **attributes):
    """An element: `tag("td", 3, class_="least")` is `<td class="least">3</td>`.

    Args:
        name: of the element.
        children: as `join` takes them.
        attributes: their values are escaped. An underscore in a name is a hyphen, and
            one at its end is left out. True stands alone; None and False leave an
            attribute out.
    """
    text = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{text}>")
    return Markup(f"<{name}{text}>{join(*children)}</{name}>")


def scroll(content, label):
    """A box that is scrolled sideways by itself, so that the page never is."""
    return tag(
        "div", content, class_="scroll", role="region", tabindex=0, aria_label=label
    )


def details(summary, *children, **attributes):
    """What a reader unfolds, without JavaScript."""
    return tag("details", tag("summary", summary), *children, **attributes)
