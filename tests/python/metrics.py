# SPDX-License-Identifier: Apache-2.0
"""What a process exports, read as Prometheus would: text format 0.0.4 over HTTP."""

import re
import threading
import urllib.request
from dataclasses import dataclass

_SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    name: str
    labels: dict
    value: float


def text(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
        return response.read().decode()


def parse(page):
    samples = []
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = _SAMPLE.match(line).groups()
            samples.append(Sample(name, dict(_LABEL.findall(labels or "")), float(value)))
    return samples


def scrape(address):
    return parse(text(address))


def total(samples, name, **labels):
    """Sum of the series of a name that have these labels."""
    return sum(s.value for s in samples if s.name == name and
               all(s.labels.get(k) == v for k, v in labels.items()))


def quantile_bound(samples, name, quantile):
    """Upper bound of the bucket that holds the quantile of a histogram (all series together)."""
    buckets = {}
    for s in samples:
        if s.name == f"{name}_bucket":
            bound = float(s.labels["le"])
            buckets[bound] = buckets.get(bound, 0) + s.value
    assert buckets, f"{name}: expected a histogram, found none"
    wanted = quantile * buckets[float("inf")]
    return next(bound for bound in sorted(buckets) if buckets[bound] >= wanted)


def wait_for(address, name, condition, rounds=2000, **labels):
    """Scrapes until the sum meets the condition; bounded."""
    for _ in range(rounds):
        value = total(scrape(address), name, **labels)
        if condition(value):
            return value
        threading.Event().wait(0.01)
    raise AssertionError(f"{name}: last found {value}")
