"""The OpenAPI document matches the server: schemathesis calls every operation with valid and invalid requests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support import patience
from tests.support.engine_helpers import ROOT, outside_environment
from tests.support.http_helpers import serving

RECORDS = [{"resource_type": "object_type", "id": str(n), "fields": {"text": f"word{n}"}} for n in range(50)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "seed"), [pytest.param(3, 1), *(pytest.param(100, n, marks=pytest.mark.torture) for n in (2, 3))]
)
@pytest.mark.timeout(0)
def test_schemathesis_finds_no_mismatch_and_no_500(tmp_path: Path, examples: int, seed: int) -> None:
    """Run all requested cases of each operation. The run may take any time while one case follows the other."""
    output, cases = tmp_path / "output", tmp_path / "cases.ndjson"
    with serving(tmp_path / "data", "--quiet", "--rate", "1000000") as server:
        client = server.client()
        client.post("branches", {"name": "main"})
        client.post("branches/main/write", {"changes": RECORDS})
        assert client.post(f"shadow-index/{client.built()}/switch", {})["success"]
        command = [
            sys.executable, "-m", "schemathesis.cli",
            "--config-file", str(ROOT / "tests" / "http" / "schemathesis.toml"),
            "run", f"{server.url}/schema", "--url", server.url, "--exclude-path-regex", "stream$",
            "--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", str(seed), "--no-color",
            "--report-ndjson-path", str(cases),
        ]  # fmt: skip
        with patience.running(command, output, cwd=tmp_path, env=outside_environment()) as process:
            still_s = patience.STILL_S * (1 + examples // 10)  # an operation is reported when all its cases are done
            status = patience.wait(process, lambda: patience.size_of(cases) + patience.size_of(output), still_s)
        report = output.read_text()
        assert status == 0, report[-8000:]
        assert re.search(r"Tested: [4-9]\d", report), report[-2000:]
        answered = server.client().call("GET", "/health/ready")
        assert answered.body["ready"] is True


def test_the_document_requires_tokens_if_the_server_does(tmp_path: Path) -> None:
    with serving(tmp_path / "open") as server:
        document = server.client().get("/schema")
        assert "securitySchemes" not in document["components"]
        assert document["components"]["schemas"]["StartBuild"]["additionalProperties"] is False
        ids = [one["operationId"] for item in document["paths"].values() for one in item.values()]
        assert len(ids) == len(set(ids)) > 40
        assert "Blocked" in str(document["paths"]["/api/v1/branches/{name}/write"]["post"]["responses"]["423"])
    entry = f'[[token]]\nname = "a"\nsha256 = "{"0" * 64}"\nscopes = ["read"]\n'
    with serving(tmp_path / "guarded", SHADOWSWITCH_TOKENS=entry) as server:
        document = server.client().get("/schema")
        assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
        start = document["paths"]["/api/v1/shadow-index/start"]["post"]
        assert start["security"] == [{"bearer": []}]
        assert "`build`" in start["description"]
