"""The identities of the three networks every engine has: bridge, host and none.

    <data-root>/network/predefined.json     {"bridge": {"id", "created"}, "host": ..., "none": ...}

Made once per data root, so that what a client stored stays true after a restart.
"""

import datetime as dt
import json
import secrets
from pathlib import Path

from cais.errors import DataLossError
from cais.linux.durable import write_durably
from cais.network.documents import DRIVERS, PredefinedNetwork
from cais.network.endpoint import NetworkId


def load_predefined(data_root: str) -> dict[str, PredefinedNetwork]:
    """Return the networks by name, making their identities the first time.

    Raises:
        DataLossError: the file is damaged; the message names it.

    """
    path = Path(data_root) / "network" / "predefined.json"
    try:
        document = json.loads(path.read_bytes())
        return {
            name: PredefinedNetwork(
                name, NetworkId(document[name]["id"]), document[name]["created"]
            )
            for name in DRIVERS
        }
    except FileNotFoundError:
        return _make(path)
    except (ValueError, KeyError, TypeError) as exc:
        raise DataLossError(f"{path} is damaged (remove it to start afresh): {exc!r}") from exc


def _make(path: Path) -> dict[str, PredefinedNetwork]:
    created = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    networks = {
        name: PredefinedNetwork(name, NetworkId(secrets.token_hex(32)), created) for name in DRIVERS
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {name: {"id": net.id, "created": net.created} for name, net in networks.items()}
    write_durably(path, json.dumps(document).encode(), mode=0o600)
    return networks
