"""An engine of your own: the model behind the HTTP server of Python's library, in one process."""

import os
import sys
import time

from pytest_mlpatterns import DeploymentError, ModelLoadError, SettingError
from pytest_mlpatterns.engines.engine import Engine
from pytest_mlpatterns.patterns.pattern import ModelNode
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.serving.deployment import Deployment, Traits
from pytest_mlpatterns.serving.processes import ForeignProcesses
from pytest_mlpatterns.serving.readiness import await_ready, left_s, too_slow_to_load
from pytest_mlpatterns.system.child import Child
from pytest_mlpatterns.system.cpu_share import current_share
from pytest_mlpatterns.wire import REST_JSON
from pytest_mlpatterns.workload.endpoint import Endpoint


class HttpServerEngine(Engine):
    """Serves one model; what stands before it in other patterns, it does not know."""

    def check(self, plan, options):
        if not isinstance(plan.root.inside, ModelNode) or plan.root.replicas != 1:
            raise SettingError('engine="http_server" serves one model in one process, expected Single()')
        if options.wire != REST_JSON:
            raise SettingError(f'engine="http_server" over {options.wire}, expected wire="rest+json"')

    def launch(self, plan, options):
        started_ns = time.perf_counter_ns()
        # a Child ends with pytest, however that ends, gets the cores of cpus=, and keeps its output in a log
        log, path = options.directory / f"http-server-{started_ns}.log", os.pathsep.join(sys.path)
        child = Child("http_server", log=log, env={"PYTHONPATH": path})
        try:
            child.send((plan.root.inside.target, options.trees))
            answer = child.receive(left_s(started_ns, options))
            if isinstance(answer, str):
                raise ModelLoadError(f"perf_model {plan.name} failed to load:\n{answer}")
            endpoint = Endpoint((("127.0.0.1", answer),), f"/v1/models/{plan.name}:predict", plan.name)
            processes = ForeignProcesses((child.pid,), child.stop, lambda: stats_of(child))
            deployment = Deployment(endpoint, processes, Traits(current_share()))
            await_ready(deployment, plan.name, started_ns, options=options)
        except TimeoutError:
            child.stop()
            raise too_slow_to_load("service", plan.name, child.log_tail(), options=options) from None
        except BaseException:
            child.stop()
            raise
        return deployment


def stats_of(child):
    """Asked for while the load runs: a server that has ended fails the test."""
    if child.has_ended:
        raise DeploymentError(f"the HTTP server (process {child.pid}) ended; it printed last:\n{child.log_tail()}")
    return PatternStats()


ENGINE = HttpServerEngine()
