"""Kubernetes' horizontal pod autoscaler with its default behaviour, for comparison.

Written from its documentation and from what pkg/controller/podautoscaler does (horizontal.go,
replica_calculator.go): a look every 15 s; CPU from a metrics server that scrapes every 15 s;
tolerance 10 %; up at most max(4 pods, 100 %) in 15 s; down to the highest recommendation of the
last 300 s.
"""

from __future__ import annotations

import math
from typing import NamedTuple

SYNC_S = 15
TOLERANCE = 0.1
UP_PODS, UP_SHARE, UP_PERIOD_S = 4, 1.0, 15
DOWN_WINDOW_S = 300
CPU_INITIALIZATION_S = 300
METRIC_WINDOW_S = 15


class Pod(NamedTuple):
    """One pod as the controller sees it.

    Attributes:
        started: when it was created, in seconds.
        ready: when it became ready, None while it is not.
        usage: its share of what it requests, None without a metric.
        measured: when that was.
    """

    started: float
    ready: float | None
    usage: float | None
    measured: float


class Hpa:
    """The controller of one deployment."""

    def __init__(self, least: int, most: int, target: float) -> None:
        self.least, self.most, self.target = least, most, target
        self._recommendations: list[tuple[float, int]] = []
        self._ups: list[tuple[float, int]] = []

    def decide(self, pods: list[Pod], now: float) -> int:
        """Return how many replicas there are to be."""
        current = len(pods)
        wanted = max(self.least, min(self.most, self.wanted(pods, now)))
        self._recommendations = [
            one for one in self._recommendations if one[0] > now - DOWN_WINDOW_S
        ]
        self._recommendations.append((now, wanted))
        if wanted < current:  # it starts from the present number, as if that was recommended
            held = max(number for _, number in self._recommendations)
            wanted = min(current, max(wanted, held))
        if wanted > current:
            recent = [(at, added) for at, added in self._ups if at > now - UP_PERIOD_S]
            began = current - sum(added for _, added in recent)
            limit = max(began + UP_PODS, math.ceil(began * (1 + UP_SHARE)))
            wanted = min(wanted, limit)
            self._ups = [*recent, (now, wanted - current)]
        return max(self.least, min(self.most, wanted))

    def wanted(self, pods: list[Pod], now: float) -> int:
        """Return what the metric asks for, before bounds and behaviour."""
        current = len(pods)
        ready: list[float] = []
        unready = missing = 0
        for pod in pods:
            if self._is_unready(pod, now):
                unready += 1
            elif pod.usage is None:
                missing += 1
            else:
                ready.append(pod.usage)
        if not ready:
            return current
        ratio = sum(ready) / len(ready) / self.target
        ignored = unready > 0 and ratio > 1
        if not ignored and not missing:
            if abs(1 - ratio) <= TOLERANCE:
                return current
            return math.ceil(ratio * len(ready) - 1e-9)
        values = list(ready)
        if missing:
            values += [1.0 if ratio < 1 else 0.0] * missing
        if ignored:
            values += [0.0] * unready
        second = sum(values) / len(values) / self.target
        if abs(1 - second) <= TOLERANCE or (ratio < 1 < second) or (second < 1 < ratio):
            return current
        number = math.ceil(second * len(values) - 1e-9)
        if (second < 1 and number > current) or (second > 1 and number < current):
            return current
        return number

    def _is_unready(self, pod: Pod, now: float) -> bool:
        if pod.ready is None:
            return True
        if now < pod.started + CPU_INITIALIZATION_S:
            return pod.usage is not None and pod.measured < pod.ready + METRIC_WINDOW_S
        return False
