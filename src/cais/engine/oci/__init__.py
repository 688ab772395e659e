"""From a container's configuration to the OCI document that runs it, with Docker's defaults.

    host_config, warnings = adapt_host_config(config, host_config, host=host)      # at creation
    built = build_document(config, host_config, target)                            # at each start
    resources = resources_document(update)                                         # at update

Everything Docker decides between the API and the runtime is decided here, a module per concern;
the values and their sources are in SECURITY.md. Nothing in an image reaches the document except
command, environment, user, working directory and volumes: labels and annotations never do.
"""

from cais.engine.oci.adapt import adapt_host_config, adapt_update
from cais.engine.oci.build import Built, Target, build_document
from cais.engine.oci.execs import exec_document
from cais.engine.oci.host import Host, detect_host
from cais.engine.oci.resources import resources_document

__all__ = [
    "Built",
    "Host",
    "Target",
    "adapt_host_config",
    "adapt_update",
    "build_document",
    "detect_host",
    "exec_document",
    "resources_document",
]
