# SPDX-License-Identifier: Apache-2.0
"""A stranger with a generic gRPC client: lists, describes and calls the services by reflection alone,
asks for their health; and the wire errors that it gets."""

import grpc
import pytest
import stack as stacks
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)

SERVICES = {"decode": "DecodeService", "prefill": "PrefillService", "cached": "CacheService",
            "budgetd": "BudgetService"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


class Stranger:
    """Knows an address and nothing else."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return list(self.database.get_services())

    def describe(self, name):
        return self.pool.FindServiceByName(name)

    def call(self, service, method, fields):
        """One unary call with a request given as JSON fields; the answer as JSON fields."""
        described = self.describe(service).methods_by_name[method]
        ask = message_factory.GetMessageClass(described.input_type)
        answer = message_factory.GetMessageClass(described.output_type)
        call = self.channel.unary_unary(f"/{service}/{method}",
                                        request_serializer=ask.SerializeToString,
                                        response_deserializer=answer.FromString)
        return json_format.MessageToDict(call(json_format.ParseDict(fields, ask()), timeout=60))


@pytest.mark.parametrize("process", SERVICES)
def test_reflection_lists_and_describes_the_service(stack, process):
    stranger = Stranger(stack.address(process))
    name = f"maskkv.v1.{SERVICES[process]}"
    assert name in stranger.services()
    assert "grpc.health.v1.Health" in stranger.services()
    assert stranger.describe(name).methods


def test_services_can_be_called_by_reflection_alone(stack):
    prefill = Stranger(stack.address("prefill"))
    info = prefill.call("maskkv.v1.PrefillService", "ModelInfo", {})
    assert info["family"] == "llada" and len(info["modelFingerprint"]) == 64
    document = {"document": "Ann lives in Lyon.", "question": "Where does Ann live?"}
    made = prefill.call("maskkv.v1.PrefillService", "Prefill",
                        {"prompt": {"document": document}, "masks": 8, "keep": {"budget": 4}})
    assert made["handle"]["entryId"] and int(made["kept"]["pairs"]) > 0
    cache = Stranger(stack.address("cached"))
    stat = cache.call("maskkv.v1.CacheService", "Stat", {})
    assert int(stat["sealedEntries"]) == 1
    plan = Stranger(stack.address("budgetd")).call("maskkv.v1.BudgetService", "GetPlan", {})
    assert int(plan["plan"]["generation"]) >= 1


@pytest.mark.parametrize("process", SERVICES)
def test_health_answers_for_each_name(stack, process):
    stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(stack.address(process)))
    for name in ("", "liveness", "readiness", f"maskkv.v1.{SERVICES[process]}"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


def test_the_control_plane_refuses_who_has_no_session(stack):
    cache = Stranger(stack.address("cached"))
    for method, fields in (("List", {}), ("Evict", {"all": True}),
                           ("Reserve", {"maxBytes": 4096})):
        with pytest.raises(grpc.RpcError) as raised:
            cache.call("maskkv.v1.CacheService", method, fields)
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
