"""Start Ray or attach to it, and end what was started, so that no process or port is left behind.

A local cluster listens on loopback as far as Ray allows (its control and object ports listen on
all interfaces whatever the node address says). It asks every caller for a token that is made for
this run alone; only Ray's own metrics are told to anyone who asks. It ends with the run; when this
process is killed, a watcher process ends it, and when both are, the next start.
"""

import contextlib
import functools
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from repast_dist.farm.scratch import clear_left_behind, scratch_folder
from repast_dist.farm.specs import FarmSpec
from repast_dist.farm.startup import told_while
from repast_dist.farm.watcher import RUN_MARK, end_marked_processes
from repast_dist.ground.errors import FarmError

# Ray turns 127.0.0.1 into the machine's outside address; any other loopback address is kept.
LOOPBACK = "127.0.0.2"
# Where Ray looks for a cluster's token: the token itself, or a file with it.
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# Where the processes of a sweep find the Ray that the sweep has started for all of them.
_SHARED = "REPAST_DIST_SHARED_RAY"
_CONNECT_TIMEOUT_S = 5.0
_LOOK_S = 0.5
_LONGEST_REASON = 300
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def cluster(spec: FarmSpec) -> Iterator[None]:
    """Keep Ray running inside the block.

    When Ray is up already in this process (a sweep, a test session) it is used and left up.

    Raises
    ------
    FarmError
        The cluster at ``farm.address`` does not answer or refuses the token, or Ray was imported
        before its authentication could be set.
    """
    if _ray_is_up():
        yield
    elif spec.address == "local" and _SHARED in os.environ:
        with _attached(os.environ[_SHARED]):
            yield
    elif spec.address == "local":
        with _local_cluster(spec):
            yield
    else:
        with _attached(spec.address, None if spec.nodes is None else spec.node_timeout_s):
            _await_nodes(spec)
            yield


@contextlib.contextmanager
def shared_cluster() -> Iterator[None]:
    """Have processes that are started inside the block use this process' Ray, if there is one."""
    if not _ray_is_up():
        yield
        return
    import ray

    with _environment({_SHARED: ray.get_runtime_context().gcs_address}):
        yield


def _ray_is_up() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@contextlib.contextmanager
def _local_cluster(spec: FarmSpec) -> Iterator[None]:
    mark = secrets.token_hex(16)
    clear_left_behind()
    with (
        scratch_folder(mark) as folder,
        _environment({RUN_MARK: mark} | _private_ray()),
    ):
        watcher = _start_watcher(mark, folder)
        try:
            # Ray's processes keep these; others, which may start a Ray of their own, get none.
            with _environment(
                patient_ray(spec.start_timeout_s) | ({} if spec.dashboard else _frugal_ray())
            ):
                _start_ray(spec, mark, folder, spare={os.getpid(), watcher.pid})
            yield
        except BaseException:
            # Ray would say at length what is known, or wait for what is gone.
            end_marked_processes(mark, str(folder), spare={os.getpid(), watcher.pid})
            raise
        finally:
            import ray

            with contextlib.suppress(Exception):
                ray.shutdown()
            _stop(mark, folder, watcher)


def _start_ray(spec: FarmSpec, mark: str, folder: Path, spare: set[int]) -> None:
    """Start Ray; where the machine is too busy for one of Ray's own limits, start it again.

    Raises
    ------
    FarmError
        It did not start, for another reason or within ``farm.start_timeout_s``.
    """
    import ray

    inside = _open_to_ray(folder)
    deadline = time.monotonic() + spec.start_timeout_s
    with told_while(lambda: "Ray to start"):
        while True:
            try:
                context = ray.init(
                    address="local",
                    num_cpus=os.cpu_count() or 1,
                    include_dashboard=spec.dashboard,
                    dashboard_host="127.0.0.1",
                    object_store_memory=spec.object_store_bytes,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                    _node_ip_address=LOOPBACK,
                    _temp_dir=str(inside),
                )
                if spec.dashboard:
                    print(_dashboard(context.dashboard_url), file=sys.stderr, flush=True)
                return
            except Exception as error:
                why = " ".join(str(error).split()) or type(error).__name__
                with contextlib.suppress(Exception):
                    ray.shutdown()
                end_marked_processes(mark, str(folder), spare)
                if "timed out" not in why.lower():
                    raise FarmError(f"Ray did not start: {why[:_LONGEST_REASON]}") from error
                if time.monotonic() > deadline:
                    raise FarmError(
                        f"Ray did not start in {spec.start_timeout_s:g} s "
                        f"({why[:_LONGEST_REASON]}); valid: a larger farm.start_timeout_s where "
                        "the machine is busy, or farm.backend=inprocess"
                    ) from error
                logger.warning("Ray did not start (%s); trying again", why[:_LONGEST_REASON])


def _dashboard(address: str) -> str:
    """Return where Ray's dashboard is, and the token that it asks for where that is ours."""
    where = f"Ray's dashboard, until the run ends: http://{address}"
    if os.environ["RAY_AUTH_MODE"] != "token":
        return where
    token = os.environ["RAY_AUTH_TOKEN"]
    ours = _own_token.cache_info().currsize > 0 and token == _own_token()
    return f"{where} asks for the token {token if ours else 'in RAY_AUTH_TOKEN'}"


def _open_to_ray(folder: Path) -> Path:
    """Return a folder inside one that is ours alone: Ray lets everybody write into the one it gets.

    Its name is short, since the paths of Unix sockets are.
    """
    inside = folder / "r"
    inside.mkdir()
    return inside


def _private_ray() -> dict[str, str]:
    """Return the environment that makes Ray ask every caller for a token only this process has."""
    ours = _own_token.cache_info().currsize > 0
    if "ray" in sys.modules and not ours and os.environ.get("RAY_AUTH_MODE") != "token":
        raise FarmError(
            "Ray was imported before the farm could turn its authentication on; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before importing ray"
        )
    # Processes that Ray starts in advance have other threads than ours, so none could be used.
    return {
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or _own_token(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_prestart_worker_first_driver": "0",
        **_quiet_ray(),
    }


def _quiet_ray() -> dict[str, str]:
    """Return the environment that keeps Ray from printing pages about what the farm says in a line.

    The coordinator meets lost workers and calls itself.
    """
    quiet = {
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        "RAY_DEDUP_LOGS_SKIP_REGEX": "Raylet is terminated",
    }
    return {name: os.environ.get(name, value) for name, value in quiet.items()}


def _frugal_ray() -> dict[str, str]:
    """Return the environment that keeps Ray from measuring itself where no dashboard shows it.

    Its processes otherwise take a twentieth of a core from the workers.
    """
    frugal = {
        "RAY_enable_metrics_collection": "0",
        "RAY_task_events_report_interval_ms": "0",
        "REPORTER_UPDATE_INTERVAL_MS": "3600000",
        "AUTOSCALER_UPDATE_INTERVAL_S": "3600",
        # Where there is no such port, none is opened to all networks.
        "AUTOSCALER_METRIC_PORT": "-1",
        "DASHBOARD_METRIC_PORT": "-1",
        # Ten times a second it would look for log files, of which nobody is sent a line.
        "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
        "LOG_NAME_UPDATE_INTERVAL_S": "3600",
    }
    return {name: os.environ.get(name, value) for name, value in frugal.items()}


def patient_ray(limit_s: float) -> dict[str, str]:
    """Return the environment that lets Ray's processes take their time on a busy machine.

    Not for a raylet's own connections: what it asks before the other side listens, it asks again
    after this time only, and Ray gives up first.
    """
    seconds = max(int(limit_s), 1)
    patient = {
        "RAY_gcs_server_port_wait_time_s": seconds,
        "RAY_gcs_rpc_server_connect_timeout_s": seconds,
        "RAY_worker_register_timeout_seconds": seconds,
        "RAY_agent_register_timeout_ms": 1000 * seconds,
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": seconds,
    }
    return {name: os.environ.get(name, str(value)) for name, value in patient.items()}


@functools.cache
def _own_token() -> str:
    """Return this process' token: Ray keeps the first it reads, so all its clusters share it."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _attached(address: str, limit_s: float | None = None) -> Iterator[None]:
    """Connect to a running cluster; a dead address is an error at once or after some seconds."""
    _require_answer(address, limit_s)
    with _environment(_quiet_ray() | _asked_for_token()):
        import ray

        started = time.monotonic()
        try:
            ray.init(address=numeric(address), log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            waited_s = time.monotonic() - started
            raise FarmError(
                f"farm.address: could not attach to Ray at '{address}' "
                f"after {waited_s:.0f} s: {error}; "
                "valid: local, auto, host:port, ray://host:port (the cluster's token in "
                f"{' or a file named by '.join(TOKENS)})"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _asked_for_token() -> dict[str, str]:
    """Return the environment that makes Ray show its token, where there is one."""
    if any(os.environ.get(name) for name in TOKENS):
        return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    return {}


def _await_nodes(spec: FarmSpec) -> None:
    """Wait until the cluster has as many nodes as it is to have.

    Raises
    ------
    FarmError
        Not in ``farm.node_timeout_s``.
    """
    import ray

    deadline = time.monotonic() + spec.node_timeout_s
    there = 0
    with told_while(lambda: f"nodes: {there} of {spec.nodes} are there"):
        while spec.nodes is not None:
            there = sum(node["Alive"] for node in ray.nodes())
            if there >= spec.nodes:
                return
            if time.monotonic() > deadline:
                raise FarmError(
                    f"farm.nodes={spec.nodes}: the cluster has {there} nodes after "
                    f"{spec.node_timeout_s:g} s (farm.node_timeout_s)"
                )
            time.sleep(_LOOK_S)


def numeric(address: str) -> str:
    """Return ``host:port`` with the IP address of the host.

    Ray asks name servers by itself, and waits for ever where names stand in ``/etc/hosts`` alone.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "://" in address or not port.isdigit():
        return address
    try:
        *_, (found, *_) = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[
            0
        ]
    except OSError:
        return address
    return f"[{found}]:{port}" if ":" in str(found) else f"{found}:{port}"


def _require_answer(address: str, limit_s: float | None) -> None:
    endpoint = address.removeprefix("ray://")
    if ":" not in endpoint:
        return
    host, _, port = endpoint.rpartition(":")
    deadline = time.monotonic() + (limit_s or 0.0)
    with told_while(lambda: f"an answer at {address}"):
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()
                return
            except (OSError, ValueError) as error:
                if time.monotonic() >= deadline or isinstance(error, ValueError):
                    waited = f" for {limit_s:g} s (farm.node_timeout_s)" if limit_s else ""
                    raise FarmError(
                        f"farm.address: nothing answers at {address}{waited} ({error})"
                    ) from error
            time.sleep(_LOOK_S)


def _stop(mark: str, folder: Path, watcher: subprocess.Popen[bytes]) -> None:
    end_marked_processes(mark, str(folder), spare={os.getpid(), watcher.pid})
    watcher.kill()
    watcher.wait()
    if watcher.stdin:
        watcher.stdin.close()


def _start_watcher(mark: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that ends the cluster when this process dies without doing so."""
    return subprocess.Popen(
        [sys.executable, "-m", "repast_dist.farm.watcher", mark, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
