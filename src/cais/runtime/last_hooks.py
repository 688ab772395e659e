"""The hooks that are run once a container is started or gone: poststart and poststop.

Those of a container begun in this process are remembered, so that the end of one without hooks
reads no document again.

Spec: OCI runtime-spec 1.2, config.md "POSIX-platform Hooks": poststop after the container is
deleted, also when it could not be created; its failures are warnings.
"""

from __future__ import annotations

from cais.runtime import bundles, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.hook_runner import HookRun
    from cais.runtime.hooks import Hooks

_begun: dict[str, Hooks | None] = {}


def remember(container_id: str, hooks: Hooks | None) -> None:
    """Note the hooks of a container that was begun here."""
    _begun[container_id] = hooks


def begin_poststart(
    container_id: str, directory: str, pid: int, *, bundle: str = ""
) -> HookRun | None:
    """Begin the poststart hooks of a container that was held before its program; None: it has none.

    A failure of theirs is raised by ``HookRun.advance``: the container must be stopped.

    Args:
        container_id: as given to ``begin``.
        directory: of its documents.
        pid: of its first process.
        bundle: when the documents lie elsewhere.

    """
    hooks = _find(container_id, directory, bundle)
    if hooks is None or not hooks.has("poststart"):
        return None
    from cais.runtime.hook_runner import HookRun

    return HookRun(hooks, ("poststart",), pid, tolerant=False)


def begin_poststop(container_id: str, directory: str, *, bundle: str = "") -> HookRun | None:
    """Begin the poststop hooks of a container that is gone, once; None: it has none.

    Args:
        container_id: as given to ``begin``.
        directory: of its documents.
        bundle: when the documents lie elsewhere.

    """
    hooks = _find(container_id, directory, bundle)
    _begun.pop(container_id, None)
    if hooks is None or not hooks.has("poststop"):
        return None
    from cais.runtime.hook_runner import HookRun

    return HookRun(hooks, ("poststop",), 0, tolerant=True)


def _find(container_id: str, directory: str, bundle: str) -> Hooks | None:
    if container_id in _begun:
        return _begun[container_id]
    return plan.load_hooks(container_id, bundle or directory, bundles.load_config(directory))
