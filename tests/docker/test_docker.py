"""The files of `docker/`: what fits together is checked always, what a program can check where the program is there."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE = DOCKER / "compose.yaml"
SERVER_CONFIG = DOCKER / "nats" / "nats-server.conf"
PROMETHEUS_CONFIG = DOCKER / "prometheus" / "prometheus.yml"
PROVISIONING = DOCKER / "grafana" / "provisioning"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "nats-jetstream.json"

# What prometheus-nats-exporter 0.20.1 produces for one server, with the flags of compose.yaml. The names of the varz
# family are the server's own, so they can change with the server: these are of nats-server 2.14 and 2.15.
METRICS = {
    f"{family}_{name}"
    for family, names in {
        "gnatsd_healthz": "status status_value",
        "gnatsd_connz": "in_bytes in_msgs limit num_connections offset out_bytes out_msgs pending_bytes subscriptions total",
        "gnatsd_subsz": "avg_fanout cache_hit_rate limit max_fanout num_cache num_inserts num_matches num_removes "
        "num_subscriptions offset total",
        "gnatsd_varz": "connections cores cpu gomaxprocs in_bytes in_msgs jetstream_config_max_memory "
        "jetstream_config_max_storage jetstream_stats_accounts jetstream_stats_api_errors jetstream_stats_api_total "
        "jetstream_stats_ha_assets jetstream_stats_memory jetstream_stats_reserved_memory "
        "jetstream_stats_reserved_storage jetstream_stats_storage leafnodes max_connections max_payload mem out_bytes "
        "out_msgs remotes routes slow_consumers stale_connections stalled_clients start subscriptions "
        "total_connections version",
        "jetstream_server": "jetstream_disabled max_memory max_storage total_consumers total_message_bytes "
        "total_messages total_streams",
        "jetstream_account": "max_memory max_storage memory_used storage_used",
        "jetstream_stream": "consumer_count first_seq last_seq limit_bytes limit_messages subject_count total_bytes "
        "total_messages",
        "jetstream_consumer": "ack_floor_consumer_seq ack_floor_stream_seq delivered_consumer_seq "
        "delivered_stream_seq last_ack_seconds last_delivery_seconds num_ack_pending num_pending num_redelivered "
        "num_waiting",
    }.items()
    for name in names.split()
}
SERVER_LABELS = {"server_id"}
STREAM_LABELS = SERVER_LABELS | {"server_name", "account", "stream_name", "stream_leader", "is_stream_leader"}
CONSUMER_LABELS = STREAM_LABELS | {"consumer_name", "consumer_leader", "is_consumer_leader"}

SELECTOR = re.compile(r"\b((?:gnatsd|jetstream)_\w+)(?:\{([^}]*)\})?")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(COMPOSE)["services"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", [])]


def queries() -> list[str]:
    """Everything that names a metric: the panels' expressions and the variables' queries."""
    variables: list[dict[str, Any]] = dashboard()["templating"]["list"]
    return expressions() + [variable["query"]["query"] for variable in variables]


def with_targets(panel: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield panel
    yield from panel.get("targets", [])


def program(name: str, why: str) -> str:
    """Where the program is, on the PATH or beside this Python; without it the test is skipped."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed: {why}")
    return found


def succeeds(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


# --- compose.yaml ---


def test_compose_has_the_four_services() -> None:
    assert set(services()) == {"nats", "nats-exporter", "prometheus", "grafana"}


def test_images_are_pinned_to_a_release() -> None:
    for name, service in services().items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-alpine)?", service["image"]), name


def test_every_port_is_bound_to_loopback() -> None:
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert len(published) == 4
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port


def test_every_mount_exists_and_files_of_ours_are_read_only() -> None:
    named = set(load(COMPOSE)["volumes"])
    used = set()
    for name, service in services().items():
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            assert target.startswith("/"), (name, volume)
            if source.startswith("./"):
                assert (DOCKER / source).exists(), (name, volume)
                assert mode == ["ro"], (name, volume)
            else:
                used.add(source)
    assert used == named


def test_every_service_restarts_and_is_limited_and_watched() -> None:
    for name, service in services().items():
        assert service["restart"] == "unless-stopped", name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_dependencies_are_services_with_a_health_check() -> None:
    for name, service in services().items():
        for other, wants in service.get("depends_on", {}).items():
            assert wants == {"condition": "service_healthy"}, name
            assert "healthcheck" in services()[other]


def test_nats_is_healthy_by_its_monitoring_port_and_has_time_to_stop() -> None:
    nats = services()["nats"]
    assert nats["healthcheck"]["test"][-1] == "http://127.0.0.1:8222/healthz"
    assert nats["stop_grace_period"] == "30s"
    assert "nats-data:/data" in nats["volumes"]


def test_the_exporter_asks_nats_for_all_of_it() -> None:
    command = services()["nats-exporter"]["command"]
    assert {"-varz", "-connz", "-subz", "-healthz", "-jsz=all"} <= set(command)
    assert command[-1] == "http://nats:8222"
    assert not services()["nats-exporter"].get("ports")


def test_grafana_wants_a_login_unless_told_otherwise() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "${GRAFANA_ANONYMOUS:-false}"
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:-")
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


# --- the configuration of each service ---


def test_the_server_stores_on_the_volume_and_syncs_before_it_confirms() -> None:
    settings = dict(
        re.findall(r"^\s*(\w+): *(\S+)$", SERVER_CONFIG.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert settings["store_dir"] == "/data"
    assert settings["sync_interval"] == "always"
    assert settings["port"] == "4222"
    assert settings["http_port"] == "8222"
    assert settings["max_file_store"]
    assert settings["max_memory_store"]


def test_prometheus_scrapes_the_exporter() -> None:
    targets = [
        target
        for job in load(PROMETHEUS_CONFIG)["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert "nats-exporter:7777" in targets


def test_the_data_source_is_our_prometheus_with_its_interval() -> None:
    (source,) = load(PROVISIONING / "datasources" / "prometheus.yaml")["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == load(PROMETHEUS_CONFIG)["global"]["scrape_interval"]


def test_the_dashboard_is_where_grafana_looks_for_it() -> None:
    (provider,) = load(PROVISIONING / "dashboards" / "nats-jobs.yaml")["providers"]
    folder = provider["options"]["path"]
    grafana = services()["grafana"]
    assert f"./grafana/dashboards:{folder}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/{DASHBOARD.name}"


# --- the dashboard ---


def test_panels_have_ids_titles_and_descriptions() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["title"]
        assert panel["type"] in {"row", "stat", "gauge", "timeseries"}
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["targets"], panel["title"]
            refs = [target["refId"] for target in panel["targets"]]
            assert len(refs) == len(set(refs)), panel["title"]


def test_panels_fit_the_grid_and_do_not_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in panels()]
    for title, at in places:
        assert at["x"] >= 0, title
        assert at["x"] + at["w"] <= 24, title
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)


def test_everything_asks_the_provisioned_data_source() -> None:
    (source,) = load(PROVISIONING / "datasources" / "prometheus.yaml")["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    for panel in panels():
        if panel["type"] != "row":
            assert [each["datasource"] for each in with_targets(panel)] == [wanted] * (
                1 + len(panel["targets"])
            )
    for variable in dashboard()["templating"]["list"]:
        assert variable["datasource"] == wanted


def test_every_variable_in_use_is_defined_and_the_other_way_round() -> None:
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = {
        name for query in queries() for name in re.findall(r"\$\{?(\w+)", query) if not name.startswith("__")
    }
    assert used == defined
    assert {"stream", "consumer"} <= defined


def test_a_variable_with_several_values_is_matched_as_a_pattern() -> None:
    for query in queries():
        for operator in re.findall(r'(\S)"\$\w+"', query):
            assert operator == "~", query


def test_every_metric_is_one_the_exporter_produces() -> None:
    used = {name for query in queries() for name, _ in SELECTOR.findall(query)}
    assert used
    assert used <= METRICS


def test_every_label_is_one_the_metric_has() -> None:
    for query in queries():
        for name, matchers in SELECTOR.findall(query):
            known = SERVER_LABELS
            if name.startswith("jetstream_stream_"):
                known = STREAM_LABELS
            elif name.startswith("jetstream_consumer_"):
                known = CONSUMER_LABELS
            assert set(re.findall(r"(\w+) *=", matchers)) <= known, query


@pytest.mark.parametrize(
    "metric",
    [
        "jetstream_consumer_num_pending",
        "jetstream_consumer_num_ack_pending",
        "jetstream_consumer_num_redelivered",
        "jetstream_consumer_num_waiting",
        "jetstream_consumer_delivered_consumer_seq",
        "jetstream_consumer_ack_floor_consumer_seq",
        "jetstream_stream_total_messages",
        "jetstream_stream_total_bytes",
        "gnatsd_varz_jetstream_config_max_storage",
        "gnatsd_varz_jetstream_config_max_memory",
        "gnatsd_varz_slow_consumers",
        "gnatsd_varz_connections",
        "gnatsd_varz_in_msgs",
        "gnatsd_varz_out_bytes",
    ],
)
def test_the_dashboard_shows(metric: str) -> None:
    assert any(metric in expression for expression in expressions())


def test_replicas_are_not_counted_twice() -> None:
    for query in expressions():
        for name, matchers in SELECTOR.findall(query):
            if name.startswith("jetstream_stream_"):
                assert 'is_stream_leader="true"' in matchers, query
            if name.startswith("jetstream_consumer_"):
                assert 'is_consumer_leader="true"' in matchers, query


# --- with the programs themselves ---


def test_docker_compose_accepts_the_file() -> None:
    docker = program("docker", "compose.yaml is not checked by Docker Compose")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin: compose.yaml is not checked by Docker Compose")
    succeeds(docker, "compose", "--file", COMPOSE, "config", "--quiet")


def test_promtool_accepts_the_configuration() -> None:
    promtool = program("promtool", "prometheus.yml is not checked by Prometheus")
    succeeds(promtool, "check", "config", PROMETHEUS_CONFIG)


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    promtool = program("promtool", "the dashboard's expressions are not parsed by Prometheus")
    rules = [
        {
            "record": f"panel:expression:{number}",
            "expr": expression.replace("$__rate_interval", "1m").replace("$__range", "1h"),
        }
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"{len(rules)} rules found" in succeeds(promtool, "check", "rules", file)


def test_nats_server_accepts_the_configuration() -> None:
    server = program("nats-server", "nats-server.conf is not checked by the server")
    assert "is valid" in succeeds(server, "-t", "-c", SERVER_CONFIG)


def test_nats_server_runs_with_the_configuration(tmp_path: Path) -> None:
    server = program("nats-server", "nats-server.conf is not tried with the server")
    config = tmp_path / "nats-server.conf"
    text = SERVER_CONFIG.read_text(encoding="utf-8")
    config.write_text(
        text.replace("store_dir: /data", f"store_dir: {json.dumps(str(tmp_path / 'data'))}"), encoding="utf-8"
    )
    anywhere = ["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "--ports_file_dir", str(tmp_path)]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([server, "-c", str(config), *anywhere], stdout=out, stderr=out)
    try:
        base = monitoring_address(process, tmp_path, log)
        deadline = time.monotonic() + 10
        while (health := ask(base + "/healthz")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert health == {"status": "ok"}
        jetstream = ask(base + "/jsz")
        assert jetstream is not None
        assert jetstream["config"]["sync_always"] is True
        assert jetstream["config"]["max_storage"] == 10 * 1024**3
        assert jetstream["config"]["max_memory"] == 256 * 1024**2
        varz = ask(base + "/varz")
        assert varz is not None
        assert_varz_has_our_names(varz)
    finally:
        process.terminate()
        process.wait(20)


def monitoring_address(process: subprocess.Popen[bytes], folder: Path, log: Path) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        for file in folder.glob("*.ports"):
            try:
                return str(json.loads(file.read_text(encoding="utf-8"))["monitoring"][0])
            except ValueError:  # half written
                pass
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")


def ask(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            found: dict[str, Any] = json.load(reply)
            return found
    except OSError:
        return None


def assert_varz_has_our_names(varz: dict[str, Any]) -> None:
    """The exporter joins the keys of /varz with underscores, so the names on the dashboard must be a path in it."""

    def paths(tree: dict[str, Any], prefix: str = "gnatsd_varz") -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from paths(value, f"{prefix}_{key}")
            else:
                yield f"{prefix}_{key}"

    used = {
        name for query in queries() for name, _ in SELECTOR.findall(query) if name.startswith("gnatsd_varz_")
    }
    assert used <= set(paths(varz))
