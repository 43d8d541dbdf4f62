"""A report as one HTML file that needs nothing else: no network, no JavaScript.

`write` reads what finished runs have left behind (`runs`), judges it in a few words
(`judgement`) and puts it together out of escaped pieces (`markup`), charts drawn as SVG
(`charts`) and one style sheet. Nothing is computed again, and no data are read.
"""

import importlib.resources

import tfadv
from tfadv.errors import UsageError
from tfadv.files import replacing
from tfadv.report.html import comparison, outcomes, runs, section
from tfadv.report.html.markup import join, raw, scroll, tag

# A browser keeps to it: nothing is fetched, and no script runs.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(workdirs, output, *, configs, outcome_files=(), made_by=""):
    """Writes the report of finished runs and of published tables.

    Args:
        workdirs: see `runs.read`.
        output: the file, whose name ends in `.html`; replaced.
        configs: directory of the configuration files, in which `command.training`
            looks for the one that a run was trained with.
        outcome_files: JSON files of `bin/reproduce`.
        made_by: the command that asked for it.

    Returns:
        The `runs.Run`s.

    Raises:
        UsageError: nothing to report, or something that is no finished run or no
            outcome.
        RunError: a file is damaged, or the report cannot be written.
    """
    if not str(output).endswith(".html"):
        raise UsageError(f"--output must end in .html; received {output}")
    if not workdirs and not outcome_files:
        raise UsageError("nothing to report: give --workdirs, --outcomes or both")
    outcomes.check(outcome_files)
    found = runs.read(workdirs)
    tables = [(path, outcomes.read(path)) for path in outcome_files]
    text = page(found, tables, configs=configs, made_by=made_by)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return found


def page(found, tables, *, configs, made_by=""):
    """The report as text.

    Args:
        found: list of `runs.Run`.
        tables: list of (path, outcome).
        configs, made_by: see `write`.
    """
    anchors = [f"run-{i}" for i in range(1, len(found) + 1)]
    places = [f"table-{i}" for i in range(1, len(tables) + 1)]
    titles = [run.name for run in found] + [made["table"] for _, made in tables]
    title = f"Robustness report: {', '.join(titles)}"
    links = zip(places, (made["table"] for _, made in tables), strict=True)
    body = join(
        tag(
            "header",
            tag("h1" if len(titles) > 1 else "p", "Robustness report", class_="kicker"),
            comparison.contents(found, anchors, list(links)),
            class_="page",
        ),
        tag(
            "main",
            comparison.of(found, anchors) if len(found) > 1 else None,
            [
                section.of(run, configs=configs, level=_level(titles), anchor=anchor)
                for run, anchor in zip(found, anchors, strict=True)
            ],
            [
                outcomes.of(made, path, level=_level(titles), anchor=place)
                for (path, made), place in zip(tables, places, strict=True)
            ],
        ),
        _footer(made_by),
    )
    style = importlib.resources.files(__name__).joinpath("style.css").read_text()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        raw(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", title),
        tag("style", raw(style)),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _level(titles):
    """Of the headings of parts: a single one is what the page is about."""
    return 2 if len(titles) > 1 else 1


def _footer(made_by):
    return tag(
        "footer",
        tag(
            "p",
            "eps is the largest change of a pixel, of pixels in [0, 1]; of attacks in "
            "l2 it is the length of the whole change. Accuracy under attack is an "
            "upper bound of robustness, for the test images and the perturbations that "
            "were tried. Intervals tell of the choice of test images, not of another "
            "training.",
        ),
        tag("p", f"Written by tfadv {tfadv.__version__}", ":" if made_by else "."),
        scroll(tag("pre", tag("code", made_by)), "Command") if made_by else None,
    )
