"""A module's members as attributes that Python finds where it looks first.

Parameters, buffers and children stand in a module's tables. Python asks `__getattr__` for them when it has looked
everywhere else and made an exception of having found nothing: a microsecond for every weight of every call. So a class
of modules gets a descriptor for each name under which one of its instances has a member.
"""

from __future__ import annotations

from typing import Any


class Member:
    """The member of this name of whatever module is asked; an attribute of the module's own comes before it."""

    __slots__ = ("name", "table")

    def __init__(self, table: str, name: str) -> None:
        self.table = table
        self.name = name

    def __get__(self, module: Any, owner: type) -> Any:
        if module is None:
            raise AttributeError(f"type object '{owner.__name__}' has no attribute '{self.name}'")
        try:
            return module.__dict__[self.table][self.name]
        except KeyError:
            return module.__getattr__(self.name)


def offer(owner: type, table: str, name: str) -> None:
    """Gives a class of modules the descriptor of a member, unless the class has an attribute of that name; never the
    base class of all."""
    if name.isidentifier() and owner.__base__ is not object and not any(
            name in base.__dict__ for base in owner.__mro__):
        setattr(owner, name, Member(table, name))


__all__ = ["Member", "offer"]
