"""The language of headers that would be the same in C and C++: that of the files around them."""

from __future__ import annotations

from collections import defaultdict

from hpctrain.corpus.languages import UNDECIDED

_VOTES = {"c": -1, "cpp": 1, "cuda": 1, "hip": 1}


class HeaderVotes:
    """Counts the decided files of the C family below each directory; holds names of directories only.

    An undecided header is C++ if in the closest directory above it that holds decided files, C++ (CUDA and
    HIP with it) outnumbers C; else it is C.
    """

    def __init__(self) -> None:
        self._direct: defaultdict[str, int] = defaultdict(int)
        self._below: dict[str, int] = {}

    def add(self, path: str, language: str) -> None:
        """Count one file."""
        if vote := _VOTES.get(language):
            self._direct[path.rpartition("/")[0]] += vote

    def close(self) -> None:
        """Sum up the tree; no file may be added after it."""
        below: defaultdict[str, int] = defaultdict(int)
        for directory, votes in self._direct.items():
            below[""] += votes
            while directory:
                below[directory] += votes
                directory = directory.rpartition("/")[0]
        self._below = dict(below)
        self._direct.clear()

    def settle(self, path: str, language: str) -> str:
        """The language of a file, UNDECIDED replaced."""
        if language != UNDECIDED:
            return language
        directory = path
        while directory:
            directory = directory.rpartition("/")[0]
            if directory in self._below:
                return "cpp" if self._below[directory] > 0 else "c"
        return "c"
