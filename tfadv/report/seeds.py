"""Several runs that differ in nothing but the seed: means and standard deviations."""

import statistics

from tfadv.evaluation import format_eps


def summarize(results):
    """One row for every attack and eps, over the runs.

    Args:
        results: contents of the `results.json` of the runs, with equal attacks and eps.

    Returns:
        list of dicts `attack`, `eps`, `mean`, `sd` (of the sample, n - 1; None for a
        single run), `accuracies` (one a run, in their order) and `n` images a run.
    """
    rows = []
    for same in zip(*(found["rows"] for found in results), strict=True):
        accuracies = [row["accuracy"] for row in same]
        rows.append(
            {
                "attack": same[0]["attack"],
                "eps": same[0]["eps"],
                "mean": statistics.mean(accuracies),
                "sd": statistics.stdev(accuracies) if len(same) > 1 else None,
                "accuracies": accuracies,
                "n": same[0]["n"],
            }
        )
    return rows


def as_lines(rows):
    """The rows as `plots.curves` takes them: the mean, and a band of one sd."""
    return [
        {
            "attack": row["attack"],
            "eps": row["eps"],
            "accuracy": row["mean"],
            "ci95": [row["mean"] - (row["sd"] or 0), row["mean"] + (row["sd"] or 0)],
        }
        for row in rows
    ]


def render(rows):
    """A table, a line an attack and eps: mean, standard deviation, least and most."""
    names = [
        f"{row['attack']}, eps {format_eps(row['eps'])}" if row["eps"] else "clean"
        for row in rows
    ]
    width = max(map(len, (*names, "accuracy in %")))
    head = f"{'accuracy in %':<{width}}{'mean':>8}{'sd':>8}{'least':>8}{'most':>8}"
    lines = [head, "-" * len(head)]
    for name, row in zip(names, rows, strict=True):
        sd = "-" if row["sd"] is None else f"{100 * row['sd']:.2f}"
        least, most = min(row["accuracies"]), max(row["accuracies"])
        lines.append(
            f"{name:<{width}}{100 * row['mean']:>8.2f}{sd:>8}"
            f"{100 * least:>8.2f}{100 * most:>8.2f}"
        )
    runs = len(rows[0]["accuracies"])
    return "\n".join([*lines, "", f"{runs} runs, {rows[0]['n']} test images each"])
