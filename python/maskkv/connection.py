# SPDX-License-Identifier: Apache-2.0
"""What both clients know of a connection: addresses, metadata, stubs."""

from dataclasses import dataclass

from maskkv.v1 import budget_pb2_grpc, cache_pb2_grpc, decode_pb2_grpc, prefill_pb2_grpc

OPTIONS = (("grpc.max_receive_message_length", 64 << 20),
           ("grpc.max_send_message_length", 64 << 20),
           # With probes of the bandwidth a client answers every step event with two window updates,
           # for which the server's threads wake up.
           ("grpc.http2.bdp_probe", 0))


@dataclass(frozen=True)
class Addresses:
    """Where the services are; those that are not named are at `decode`, as with `maskkv serve`."""

    decode: str
    prefill: str | None = None
    cache: str | None = None
    budget: str | None = None


class Stubs:
    """The four stubs over channels that open(address) makes, one channel an address."""

    def __init__(self, addresses, open_channel):
        self.channels = {}

        def channel(address):
            address = address or addresses.decode
            if address not in self.channels:
                self.channels[address] = open_channel(address, options=OPTIONS)
            return self.channels[address]

        self.decode = decode_pb2_grpc.DecodeServiceStub(channel(addresses.decode))
        self.prefill = prefill_pb2_grpc.PrefillServiceStub(channel(addresses.prefill))
        self.cache = cache_pb2_grpc.CacheServiceStub(channel(addresses.cache))
        self.budget = budget_pb2_grpc.BudgetServiceStub(channel(addresses.budget))


def metadata(token, tenant, traceparent):
    pairs = []
    if token:
        pairs.append(("authorization", f"Bearer {token}"))
    if tenant:
        pairs.append(("maskkv-tenant", tenant))
    if traceparent:
        pairs.append(("traceparent", traceparent))
    return tuple(pairs)
