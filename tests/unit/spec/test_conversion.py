"""A class whose first use two threads make at the same moment."""

import subprocess
import sys
import textwrap

import msgspec
import pytest

from cais.spec import conversion

USES = {
    "convert": "conversion.convert({'inner': {'number': 5}}, Outer).inner.number",
    "decoder": """conversion.decoder(Outer)('{"inner": {"number": 5}}').inner.number""",
}
PROGRAM = """
from __future__ import annotations
import faulthandler, threading
import msgspec
import msgspec

from cais.spec import conversion

class Inner(msgspec.Struct):
    number: slowly()

class Outer(msgspec.Struct):
    inner: Inner

found = []
resolving, ended = threading.Event(), threading.Event()

def slowly():  # called when annotations are resolved: of Outer half is known by then
    resolving.set()
    ended.wait(0.5)  # the other one must wait for this, so its end is not to be seen
    return int

def use():
    found.append({use})

def use_meanwhile():
    resolving.wait()
    use()
    ended.set()

threads = [threading.Thread(target=each) for each in (use, use_meanwhile)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [5, 5], found
"""


@pytest.mark.parametrize("use", USES)
def test_the_second_waits_until_the_first_knows_the_class(use: str) -> None:
    program = textwrap.dedent(PROGRAM).replace("{use}", USES[use])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_attributes_of_another_class() -> None:
    class One:
        number = 5

    other = conversion.convert({"number": 5}, _Number)
    assert conversion.convert(One(), _Number, from_attributes=True) == other


class _Number(msgspec.Struct):
    number: int
