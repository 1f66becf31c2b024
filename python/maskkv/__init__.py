# SPDX-License-Identifier: Apache-2.0
"""Client of maskkv's services.

    import maskkv

    with maskkv.Client("127.0.0.1:50051") as client:
        answer = client.generate(document=text, question="Who did it?", budget=64)
        print(answer.text)

`Client` blocks, `AsyncClient` is the same with asyncio; `stream` yields events as they come. Errors
are `maskkv.Error` with the server's code, reason and facts. The messages and stubs generated from
protos/ are in `maskkv.v1` for everything else.
"""

from maskkv.aio import AsyncClient
from maskkv.client import Client
from maskkv.errors import Error
from maskkv.types import (Answer, CacheStat, Event, Explanation, Finished, HeadExplanation, Kept,
                          ModelInfo, Plan, Policy, Prefilled, Provenance, Refreshed, Started, Step,
                          Timings, Token, Usage)

__all__ = ["Answer", "AsyncClient", "CacheStat", "Client", "Error", "Event", "Explanation",
           "Finished", "HeadExplanation", "Kept", "ModelInfo", "Plan", "Policy", "Prefilled",
           "Provenance", "Refreshed", "Started", "Step", "Timings", "Token", "Usage"]
__version__ = "0.1.0"
