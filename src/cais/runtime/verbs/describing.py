"""``spec`` and ``features``: what a bundle may say."""

from __future__ import annotations

import os
import sys

from cais.errors import ConflictError, InvalidArgumentError
from cais.runtime.arguments import SWITCH, TEXT
from cais.runtime.verbs.verb import Verb
from cais.spec import json_text
from cais.spec.runtime import OCI_VERSION
from cais.spec.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.verbs.verb import Context

_SPEC_FLAGS: tuple[Flag, ...] = (
    ("bundle,b", TEXT, "directory of the bundle (default: the current directory)"),
    ("rootless", SWITCH, "a document that an ordinary user can run"),
)


def version() -> str:
    """Return the text of ``--version``."""
    return f"cais-runtime version {VERSION}\nspec: {OCI_VERSION}\n"


def _spec(given: Arguments, _: Context) -> int:
    # Only here: it is one big document.
    from cais.runtime import example

    bundle = given.text("bundle", ".")
    try:
        os.chdir(bundle)
        with open("config.json", "x") as file:
            document = example.rootless_config() if given.has("rootless") else example.config()
            file.write(json_text.encode(document, indent="\t") + "\n")
    except FileExistsError:
        raise ConflictError("File config.json exists. Remove it first") from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgumentError(f"chdir {bundle}: {reason}") from None
    return 0


def _features(_: Arguments, __: Context) -> int:
    # Only here: it asks the kernel and libseccomp.
    from cais.runtime import features

    sys.stdout.write(json_text.encode(features.document(), indent=4) + "\n")
    return 0


SPEC = Verb(
    "spec",
    "write an example bundle document",
    _spec,
    flags=_SPEC_FLAGS,
    operands="",
    least=0,
    most=0,
)
FEATURES = Verb(
    "features", "print what this runtime supports", _features, operands="", least=0, most=0
)
