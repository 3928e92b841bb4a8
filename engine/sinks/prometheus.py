"""Figures for Prometheus on 127.0.0.1, read when they are asked for."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as PrometheusMetric
from prometheus_client.exposition import ThreadingWSGIServer, _SilentHandler
from prometheus_client.registry import Collector

from engine.core.errors import ServiceUnreachable
from engine.core.host_header import names_loopback
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.machine.probes import MachineProbes
from engine.sinks.metrics import METRICS, Figure, machine_figures, run_figures
from engine.sinks.run_feed import RunFeed

HOST = "127.0.0.1"
POLL_S = 0.1
"""Seconds until `close` is seen."""
FRESH_S = 1.0
"""Two questions within this time get the same figures: the shares of the processor need a span."""


class FigureCollector(Collector):
    """Figures of the machine and of the runs of one workspace. Nothing of this process, nothing that a person wrote."""

    def __init__(self, workspace: Workspace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._probes = MachineProbes(workspace.root)
        self._feed = RunFeed(workspace, finished=False)
        self._clock = clock
        self._lock = threading.Lock()
        self._figures: list[Figure] = []
        self._read_at: float | None = None

    def describe(self) -> Iterable[PrometheusMetric]:
        """None: a registry would collect to find the names."""
        return ()

    def collect(self) -> Iterator[PrometheusMetric]:
        """All metrics that have a value now."""
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= FRESH_S:
                self._figures, self._read_at = list(self._read()), now
            figures = self._figures
        for metric in METRICS:
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for figure in figures:
                if figure.metric is metric:
                    family.add_metric(figure.labels, figure.value)
            if family.samples:
                yield family

    def _read(self) -> Iterator[Figure]:
        yield from machine_figures(self._probes.sample())
        for _batch in self._feed.read():
            pass
        for followed in self._feed.runs:
            yield from run_figures(followed)


def make_app(workspace: Workspace) -> WSGIApplication:
    """Answers every GET with the figures, when the `Host` names this machine and no page of another origin asks."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FigureCollector(workspace))
    metrics: Any = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not names_loopback(environ.get("HTTP_HOST", "")) or "HTTP_ORIGIN" in environ:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"This server answers to programs on this machine alone.\n"]
        answer: Iterable[bytes] = metrics(environ, start_response)
        return answer

    return app


class MetricsServer:
    """Serves the figures on 127.0.0.1 until `close`."""

    def __init__(self, workspace: Workspace, port: int) -> None:
        """Listens on `port`; 0 takes any. Raises ServiceUnreachable when it is taken."""
        try:
            self._server: WSGIServer = make_server(
                HOST, port, make_app(workspace), ThreadingWSGIServer, handler_class=_SilentHandler
            )
        except OSError as problem:
            if problem.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise ServiceUnreachable(
                _("Port {port} of this machine is taken").format(port=port),
                hint="h2q-tui monitor --export-port 0",
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where Prometheus finds the figures."""
        return f"http://{HOST}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
