"""Which images may be pulled: rules that are enforced before a byte of an image is fetched.

``/etc/cais/policy.toml``; of several rules the one with the longest scope counts::

    default = "deny"                            # for everything no rule names; otherwise "allow"

    [[rule]]
    scope = "docker.io/library/debian"          # a registry, a repository, or what is below one
    require = "digest"                          # only what is pinned here, or else by the user
    digests = ["sha256:..."]

    [[rule]]
    scope = "registry.example.com/team"
    require = "signature"                       # made with cosign, of old or in a bundle
    keys = ["/etc/cais/keys/team.pub"]          # by one of these (PEM)
    match_name = true                           # and for this very repository

    [[rule]]
    scope = "registry.example.com"
    require = "allow"                           # or "deny"

Read at every pull. A file that cannot be read as a whole allows nothing.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Literal

import msgspec

from cais.errors import ForbiddenError, InvalidArgumentError
from cais.images.signatures import search_signature
from cais.images.signing_keys import load_key
from cais.spec.conversion import convert
from cais.spec.digest import parse_digest
from cais.spec.reference import split_domain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cais.images.signatures import Search
    from cais.images.signing_keys import Key
    from cais.registry.repository import FetchedManifest, Repository
    from cais.spec.digest import Digest
    from cais.spec.reference import Reference


class RefusedByPolicyError(ForbiddenError):
    """The policy of this machine does not allow a pull; the text names file and rule."""


class Rule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What images of one scope have to prove."""

    scope: str
    require: Literal["allow", "deny", "digest", "signature"]
    digests: list[str] = []
    keys: list[str] = []
    match_name: bool = False

    def covers(self, repository: str) -> bool:
        """Whether a repository, by its full name, is in the scope."""
        return repository == self.scope or repository.startswith(f"{self.scope}/")


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    default: Literal["allow", "deny"] = "allow"
    rule: list[Rule] = []


class Policy:
    """All rules of one file.

    Args:
        name: of the file, for messages.
        rules: in any order.
        default: for what no rule covers.

    Raises:
        InvalidArgumentError: a rule contradicts itself, or its keys cannot be read.

    """

    def __init__(self, name: str, rules: Sequence[Rule] = (), default: str = "allow") -> None:
        self._name = name
        self._rules = sorted(rules, key=lambda rule: -len(rule.scope))
        self._default = default
        self._keys = {rule.scope: _check(name, rule) for rule in rules}
        if len(self._keys) != len(rules):
            raise InvalidArgumentError(f"{name}: two rules have the same scope")

    def check(self, wanted: Reference, top: FetchedManifest, source: Repository) -> None:
        """Let a pull go on, or not.

        Args:
            wanted: what the user named.
            top: the manifest or index that the registry sent for it.
            source: where signatures are looked for.

        Raises:
            RefusedByPolicyError: not allowed.
            RegistryError: the registry refuses to say what it has.

        Blocks: for as long as the registry takes.

        """
        rule = next((one for one in self._rules if one.covers(wanted.repository)), None)
        if rule is None:
            if self._default == "deny":
                raise self._refusal(wanted, "default", "no rule allows it")
            return
        if rule.require == "deny":
            raise self._refusal(wanted, rule.scope, "denied")
        if rule.require == "digest":
            self._check_digest(rule, wanted, top)
        elif rule.require == "signature":
            name = wanted.repository if rule.match_name else None
            found = search_signature(source, top.digest, self._keys[rule.scope], name)
            if not found.is_signed:
                raise self._refusal(wanted, rule.scope, _unsigned(top.digest, found))

    def _check_digest(self, rule: Rule, wanted: Reference, top: FetchedManifest) -> None:
        if rule.digests and top.digest not in rule.digests:
            raise self._refusal(wanted, rule.scope, f"{top.digest} is not one of its digests")
        if not rule.digests and wanted.digest is None:
            raise self._refusal(wanted, rule.scope, "has to be pulled by digest")

    def _refusal(self, wanted: Reference, scope: str, why: str) -> RefusedByPolicyError:
        return RefusedByPolicyError(
            f"pull of {wanted.familiar()} refused by policy {self._name}, rule {scope!r}: {why}"
        )


def load_policy(path: Path) -> Policy:
    """Read a policy; without a file everything is allowed.

    Raises:
        InvalidArgumentError: the file, or a key it names, is malformed or cannot be read.

    """
    try:
        document = convert(tomllib.loads(path.read_text()), _Document)
    except FileNotFoundError:
        return Policy(str(path))
    except (OSError, ValueError, msgspec.ValidationError) as exc:
        raise InvalidArgumentError(f"policy {path}: {exc}") from exc
    return Policy(str(path), document.rule, document.default)


def _unsigned(digest: Digest, found: Search) -> str:
    why = f"{digest} has no valid signature by any of its keys"
    return f"{why} (there is a {', a '.join(found.passed_over[:3])})" if found.passed_over else why


def _check(name: str, rule: Rule) -> tuple[Key, ...]:
    """Return a rule's keys."""
    where = f"policy {name}, rule {rule.scope!r}"
    if rule.scope != (full := _full_name(rule.scope)):  # a short name would cover nothing
        raise InvalidArgumentError(f"{where}: not a full name: did you mean {full!r}?")
    if (rule.require == "signature") is not bool(rule.keys):
        raise InvalidArgumentError(f"{where}: keys and a required signature belong together")
    if rule.digests and rule.require != "digest":
        raise InvalidArgumentError(f"{where}: digests without a required digest")
    for digest in rule.digests:
        parse_digest(digest)
    return tuple(load_key(where, key) for key in rule.keys)


def _full_name(scope: str) -> str:
    """Return what a scope is in full; a registry alone is."""
    is_registry = "/" not in scope and (scope == "localhost" or any(m in scope for m in ".:"))
    return scope if is_registry else "/".join(split_domain(scope.rstrip("/")))
