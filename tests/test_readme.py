"""The README's samples run as they stand there, one after the other, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def sample(name: str) -> str:
    found = re.search(
        rf"<!-- {name}: begin [^>]*-->\n```\w+\n(.*?)```\n<!-- {name}: end -->", README.read_text(), re.DOTALL
    )
    assert found is not None, f"the README has no {name}"
    return found.group(1)


def test_the_readmes_samples_work_as_they_stand(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shell = sample("shell sample")
    assert shell.count("rxledger ") >= 5
    subprocess.run(["bash", "-euc", shell], cwd=tmp_path, env=environment, check=True, timeout=120)
    code = sample("sample")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fill 1 has been dispensed" in done.stdout
