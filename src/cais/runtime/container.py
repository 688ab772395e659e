"""Create, start, exec, pause and delete containers: the runtime as functions of a bundle.

The caller is single-threaded, warm (everything imported), runs from a sealed copy of the
interpreter, and stays the parent of every process started here. Its Python signal handlers must
do nothing of weight: one that was pending at the clone runs in the child too.
"""

from cais.runtime.control import cgroup_of, destroy, kill, kill_all, pause, resume, update
from cais.runtime.execution import begin_exec
from cais.runtime.last_hooks import begin_poststart, begin_poststop
from cais.runtime.launch import Launch, LaunchError, Running, Stdio
from cais.runtime.starter import begin

__all__ = [
    "Launch",
    "LaunchError",
    "Running",
    "Stdio",
    "begin",
    "begin_exec",
    "begin_poststart",
    "begin_poststop",
    "cgroup_of",
    "destroy",
    "kill",
    "kill_all",
    "pause",
    "resume",
    "update",
]
