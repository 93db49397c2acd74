#!/usr/bin/env python3
"""Checks the form of compose.yaml and Dockerfile, without an engine; it builds and starts nothing.

What it holds: names that are used are defined, ports are published on 127.0.0.1 only, no password stands in the
file, files that are mounted or copied exist, the NATS image is new enough, and the last stage is not run by root.
Where `docker compose` is there, its own check runs too. Without PyYAML (Debian: python3-yaml) compose.yaml is left out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = set(
    "FROM RUN WORKDIR COPY ENV USER VOLUME EXPOSE STOPSIGNAL ENTRYPOINT CMD ARG LABEL HEALTHCHECK".split()
)
SERVICE_KEYS = set(
    "image build restart volumes healthcheck command ports environment depends_on deploy stop_grace_period secrets".split()
)


def check_dockerfile(text):
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M)).splitlines()
    stages, user = [], None
    for words in (line.split() for line in lines if line.strip()):
        name = words[0]
        if name not in INSTRUCTIONS:
            yield f"Dockerfile: unknown instruction {name}"
        if name == "FROM":
            user = None
            if re.search(r":\S", words[1]) is None:
                yield f"Dockerfile: {words[1]} has no tag"
            stages.append(words[3] if len(words) == 4 and words[2] == "AS" else None)
        elif name == "USER":
            user = words[1]
        elif name == "COPY" and words[1].startswith("--from="):
            if words[1].removeprefix("--from=") not in stages[:-1]:
                yield f"Dockerfile: no earlier stage for {words[1]}"
        elif name == "COPY":
            for source in words[1:-1]:
                if not (ROOT / source).exists():
                    yield f"Dockerfile: {source} is copied but is not there"
    if user in (None, "root", "0"):
        yield "Dockerfile: the last stage runs as root"


def check_compose(compose):
    services, volumes = compose["services"], compose.get("volumes") or {}
    used = set()
    for name, service in services.items():
        where = f"compose.yaml: {name}"
        for key in service.keys() - SERVICE_KEYS:
            yield f"{where}: unknown key {key}"
        if "image" not in service:
            yield f"{where}: no image"
        elif nats := re.match(r"nats:(\d+)\.(\d+)", service["image"]):
            if (int(nats[1]), int(nats[2])) < (2, 14):
                yield f"{where}: NATS {nats[1]}.{nats[2]} is older than 2.14"
        for other in service.get("depends_on", {}):
            if other not in services:
                yield f"{where}: depends on {other}, which is not there"
            elif "healthcheck" not in services[other]:
                yield f"{where}: waits for the health of {other}, which has no check"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{where}: port {port} is not on 127.0.0.1"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            used.add(source)
            if source.startswith("./nats") and not (ROOT / source).exists():
                yield f"{where}: {source} is mounted but is not there"
            elif not source.startswith(".") and source not in volumes:
                yield f"{where}: volume {source} is not declared"
        for secret in service.get("secrets", []):
            if secret not in (compose.get("secrets") or {}):
                yield f"{where}: secret {secret} is not declared"
        for key, value in service.get("environment", {}).items():
            if key.endswith("_FILE"):
                # A secret's place, which the engine mounts.
                if not any(str(value) == f"/run/secrets/{secret}" for secret in service.get("secrets", [])):
                    yield f"{where}: {key} names no secret of the service"
            elif re.search("PASSWORD|SECRET|TOKEN", key) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", str(value)):
                yield f"{where}: {key} must come from the environment, with no default"
    for name in volumes.keys() - used:
        yield f"compose.yaml: volume {name} is not used"


def load_yaml():
    try:
        import yaml
    except ImportError:
        # Debian's python3-yaml belongs to Debian's own Python, which need not be the first on PATH.
        debian = "/usr/bin/python3"
        if sys.executable != debian and subprocess.run(
            f"{debian} -c 'import yaml'", shell=True, stderr=subprocess.DEVNULL
        ).returncode == 0:
            os.execv(debian, [debian, *sys.argv])
        return None
    return yaml


def main():
    yaml = load_yaml()
    problems = list(check_dockerfile((ROOT / "Dockerfile").read_text()))
    if yaml:
        problems += check_compose(yaml.safe_load((ROOT / "compose.yaml").read_text()))
    else:
        print("PyYAML (Debian: python3-yaml) is not installed: compose.yaml is left out")
    try:
        docker = ["docker", "compose", "-f", str(ROOT / "compose.yaml")]
        if subprocess.run([*docker, "version"], capture_output=True).returncode == 0:
            env = {**os.environ, "KADR_POSTGRES_PASSWORD": "for-the-check"}
            if subprocess.run([*docker, "config", "-q"], env=env).returncode != 0:
                problems.append("compose.yaml: docker compose does not accept it")
    except FileNotFoundError:
        pass
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
