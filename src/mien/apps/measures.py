"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Measures"]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


class Measures:
    """One server's counters; each server has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to = self.registry
        self.requests = Counter("mien_requests", "Requests by route and status", ["route", "status"], registry=to)
        self.seconds = Histogram(
            "mien_request_seconds", "From request to answer", ["route"], buckets=_SECONDS, registry=to
        )
        self.stages = Histogram("mien_stage_seconds", "Time of a stage", ["stage"], buckets=_SECONDS, registry=to)
        self.images = Counter("mien_images", "Pictures and frames read", registry=to)
        self.faces = Counter("mien_faces", "Faces read", registry=to)
        self.batch = Histogram(
            "mien_batch_faces", "Faces in one call of the model", buckets=(1, 2, 4, 8, 16, 32, 64), registry=to
        )
        self.busy = Gauge("mien_requests_in_work", "Requests in work", registry=to)
        self.sockets = Gauge("mien_sockets", "Open sockets for frames", registry=to)
        self.jobs = Counter("mien_jobs", "Clips by how they ended", ["state"], registry=to)

    def text(self) -> bytes:
        """Everything, in Prometheus' text form."""
        return generate_latest(self.registry)
