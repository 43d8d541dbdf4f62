"""The attacks of an evaluation, built and checked before any data is read."""

import dataclasses

from tfadv import attacks, config
from tfadv.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One attack of an evaluation.

    Args:
        label: its name in tables: the attack's, and the arguments that were written.
        name: the attack's name in `attacks.ATTACKS`.
        attack: the attack at the largest eps; each measurement replaces `eps`.
    """

    label: str
    name: str
    attack: object


def build(evaluate, *, where):
    """The `Entry`s of a `config.Evaluate`, with random noise added as a control.

    Raises:
        UsageError: an unknown attack or argument, an eps out of range, a name twice.
    """
    entries = [_entry(written, evaluate.eps, where) for written in evaluate.attacks]
    if not any(entry.name in attacks.NOISE for entry in entries):
        entries.append(_entry("random_sign", evaluate.eps, where))
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"{where}: `attacks` names {label!r} twice")
    return entries


def _table(written):
    """What was written as a table: a name, `generator:PATH` or a table itself."""
    if not isinstance(written, str):
        return dict(written)
    name, colon, path = written.partition(":")
    return {"name": name, "generator": path} if colon else {"name": name}


def _entry(written, eps, where):
    table = _table(written)
    where = f"{where} attacks"
    if "name" not in table:
        raise UsageError(f"{where}: {written!r} has no key 'name'")
    if "eps" in table:
        raise UsageError(
            f"{where}: leave `eps` out of {written!r}; it is a list beside"
        )
    name = table.pop("name")
    factory = attacks.get(name)
    for size in sorted(eps):
        attack = config.build(factory, {**table, "eps": size}, where=f"{where} {name}")
    arguments = ", ".join(f"{key}={value}" for key, value in table.items())
    return Entry(f"{name}({arguments})" if arguments else name, name, attack)
