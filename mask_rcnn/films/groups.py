"""Films that belong together, by ties between two of them at a time."""

from __future__ import annotations


class Groups:
    """Groups of films 0 to ``count`` - 1, each film by itself at first (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def first(self, film: int) -> int:
        """The first film of a film's group."""
        parents = self._parents
        while parents[film] != film:
            parents[film] = film = parents[parents[film]]
        return film

    def join(self, one: int, other: int) -> None:
        """Makes one group of the groups of two films."""
        first, second = sorted((self.first(one), self.first(other)))
        self._parents[second] = first

    def firsts(self) -> list[int]:
        """For each film the first film of its group."""
        return [self.first(film) for film in range(len(self._parents))]
