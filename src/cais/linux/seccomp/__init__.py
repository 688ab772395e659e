"""System-call filters: Docker's profiles resolved, compiled with libseccomp, cached, loaded.

    profiles.resolve(profile, ...)        Docker's form -> OCI ``linux.seccomp``   (pure)
    compiler.compile_profile(seccomp)     OCI ``linux.seccomp`` -> program         (libseccomp)
    compiler.ensure_compiled(seccomp, d)  the same, kept as a file by digest
    load(program)                         in the child, just before execve         (one system call)

A program is the bytes of ``loader.pack``: flags and BPF instructions. Only ``load`` is imported
here, because the container's child pays for every import.

Spec: seccomp(2); OCI runtime-spec 1.2, config-linux.md "Seccomp"; SECURITY.md 3.6.
"""

from cais.linux.seccomp.loader import load

__all__ = ["load"]
