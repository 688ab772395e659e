"""Container names: the grammar, automatic names, ids."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_ADJECTIVES = [
    "able",
    "agile",
    "amber",
    "ample",
    "azure",
    "blithe",
    "bold",
    "brave",
    "breezy",
    "bright",
    "brisk",
    "calm",
    "candid",
    "cheery",
    "civil",
    "clever",
    "coastal",
    "cosy",
    "crisp",
    "curious",
    "daring",
    "deft",
    "eager",
    "early",
    "earnest",
    "easy",
    "fair",
    "fleet",
    "fluent",
    "fond",
    "frank",
    "fresh",
    "gentle",
    "glad",
    "golden",
    "grand",
    "hardy",
    "hearty",
    "honest",
    "humble",
    "jolly",
    "keen",
    "kind",
    "lively",
    "loyal",
    "lucid",
    "lucky",
    "mellow",
    "merry",
    "mild",
    "neat",
    "nimble",
    "noble",
    "patient",
    "placid",
    "plucky",
    "polite",
    "prompt",
    "proud",
    "quick",
    "quiet",
    "rapid",
    "ready",
    "robust",
    "rosy",
    "serene",
    "sharp",
    "silver",
    "smooth",
    "snug",
    "sober",
    "spry",
    "steady",
    "still",
    "sturdy",
    "sunny",
    "swift",
    "tender",
    "tidy",
    "tranquil",
    "trusty",
    "upbeat",
    "valiant",
    "vivid",
    "warm",
    "wise",
    "witty",
    "zesty",
]
_SURNAMES = [
    "ampere",
    "archimedes",
    "babbage",
    "banach",
    "bell",
    "bohr",
    "boole",
    "brahe",
    "cauchy",
    "cerf",
    "church",
    "clarke",
    "cray",
    "curie",
    "darwin",
    "dijkstra",
    "dirac",
    "einstein",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "godel",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hertz",
    "hilbert",
    "hoare",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacobi",
    "joule",
    "kepler",
    "khayyam",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "leibniz",
    "liskov",
    "lorentz",
    "lovelace",
    "magellan",
    "maxwell",
    "mendel",
    "meitner",
    "mirzakhani",
    "moore",
    "morse",
    "napier",
    "nash",
    "newton",
    "nobel",
    "noether",
    "nunes",
    "ohm",
    "pascal",
    "pasteur",
    "pauling",
    "perlman",
    "planck",
    "poincare",
    "ptolemy",
    "ramanujan",
    "riemann",
    "ritchie",
    "rontgen",
    "shannon",
    "shamir",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wilson",
    "wing",
    "wright",
    "wu",
    "yalow",
    "zuse",
]


def new_id() -> str:
    """Return 64 hex digits whose first 12 are never all decimal (they would read as a number)."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdigit():
            return candidate


def parse_name(name: str) -> str:
    """Return the name with its leading slash.

    Raises:
        InvalidArgumentError: Docker's text with the grammar.

    """
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare):
        raise InvalidArgumentError(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return "/" + bare


def generate_name(is_taken: Callable[[str], bool]) -> str:
    """Return a free ``/adjective_surname``, with a digit after it when many are taken."""
    for attempt in range(1000):
        name = f"/{secrets.choice(_ADJECTIVES)}_{secrets.choice(_SURNAMES)}"
        if attempt > 5:
            name += str(secrets.randbelow(10 ** min(attempt - 5, 9)))
        if not is_taken(name):
            return name
    raise AssertionError("unreachable: a thousand random names are all taken")
