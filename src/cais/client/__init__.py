"""A small synchronous client of the Docker Engine API, over a unix socket or TCP.

```
client = Client(Address.parse("unix:///run/cais/caisd.sock"))
for row in client.get("/containers/json").json():
    print(row["Id"])
```
"""

from cais.client.address import Address
from cais.client.client import Client
from cais.client.hijack import Hijacked, demultiplex
from cais.client.response import Response

__all__ = ["Address", "Client", "Hijacked", "Response", "demultiplex"]
