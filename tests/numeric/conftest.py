"""Kernels of the tests are cached in a folder of their own that lives as long as the test run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _kernel_folder(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUASISTATIC_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield
