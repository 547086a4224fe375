"""deploy/: its files agree with the server, and the programs that read them take them where these are installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from barkfast.cli import build_parser
from barkfast.server.settings import Settings
from barkfast.server.speech import BYTES_PER_CHARACTER, OTHER_BYTES

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
UNIT = (DEPLOY / "systemd" / "barkfast.service").read_text(encoding="utf-8")
SITE = (DEPLOY / "nginx" / "barkfast.conf").read_text(encoding="utf-8")
# Seconds beyond the drain for the engine's process to end and the connections to close.
GRACE_S = 15


def test_the_unit_waits_for_the_drain():
    (seconds,) = re.findall(r"(?m)^TimeoutStopSec=(\d+)$", UNIT)
    assert int(seconds) == Settings().drain_s + GRACE_S


def test_the_variables_are_options(monkeypatch: pytest.MonkeyPatch):
    text = (DEPLOY / "systemd" / "serve.env").read_text(encoding="utf-8")
    given = re.findall(r"(?m)^#?(BARKFAST_SERVE_([A-Z_]+))=(.+)$", text)
    assert given
    for variable, _, value in given:
        monkeypatch.setenv(variable, value)
    args = vars(build_parser().parse_args(["serve"]))
    for variable, name, _ in given:
        assert name.lower() in args, f"{variable} is no option"
    assert args["drain"] == Settings().drain_s and args["port"] == 8000


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path):
    # What it starts must exist.
    unit = tmp_path / "barkfast.service"
    unit.write_text(UNIT.replace("/opt/barkfast/bin/barkfast", shutil.which("true")))
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_site_takes_what_the_server_takes():
    most = Settings().max_input * BYTES_PER_CHARACTER + OTHER_BYTES
    assert f"client_max_body_size {most // 1024}k;" in SITE and most % 1024 == 0


@pytest.mark.skipif(not (shutil.which("nginx") and shutil.which("openssl")), reason="nginx or openssl is not installed")
def test_nginx_takes_the_site(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=speech.example.com"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    site = re.sub(r"ssl_certificate +\S+;", f"ssl_certificate {certificate};", SITE)
    site = re.sub(r"ssl_certificate_key +\S+;", f"ssl_certificate_key {key};", site)
    # Without a port, which would need rights.
    site = re.sub(r"(?m)^ *listen \[::\].*\n", "", site)
    site = re.sub(r"listen (\d+)", rf"listen unix:{tmp_path}/\1", site)
    folders = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}{site}\n}}\n"
    )
    run = ["nginx", "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    result = subprocess.run(run, capture_output=True, text=True)
    assert result.returncode == 0 and "[warn]" not in result.stderr, result.stderr
