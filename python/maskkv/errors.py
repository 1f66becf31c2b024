# SPDX-License-Identifier: Apache-2.0
"""What a failed call says, for programs: docs/errors.md lists codes and reasons."""

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class Error(Exception):
    """A call that failed.

    code: grpc.StatusCode. reason: UPPER_SNAKE_CASE, "" if the server gave none. facts: dict of
    strings. retry_after: seconds to wait before trying again, None without a hint.
    """

    def __init__(self, code, message, reason="", facts=None, retry_after=None):
        super().__init__(f"{code.name}{f' ({reason})' if reason else ''}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.facts = dict(facts or {})
        self.retry_after = retry_after


def _details(trailing_metadata):
    for key, value in trailing_metadata or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value).details
            except Exception:  # what is no google.rpc.Status tells nothing
                return ()
    return ()


def from_rpc_error(error):
    """The Error of a grpc.RpcError that a call raised."""
    reason, facts, retry_after = "", {}, None
    for detail in _details(error.trailing_metadata()):
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, facts = info.reason, info.metadata
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return Error(error.code(), error.details() or "", reason, facts, retry_after)
