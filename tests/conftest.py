"""What every test can rely on: few threads, and a reason for each test that cannot run here."""

import os
from pathlib import Path

import pytest

# On the small tensors of the tests more threads cost more than they give. Read by torch when it loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DATA = "MASKRCNN_DATA"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--slow`."""
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with a reason, what needs a GPU, the real data set or minutes."""
    reasons = {"gpu": _no_gpu(items), "data": _no_data(), "slow": _not_slow(config)}
    for item in items:
        for mark, reason in reasons.items():
            if reason and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; for tests marked `data`."""
    reason = _no_data()
    if reason:
        pytest.skip(reason)
    return Path(os.environ[DATA])


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


def _no_gpu(items: list[pytest.Item]) -> str:
    if not any(item.get_closest_marker("gpu") for item in items):
        return ""  # asking torch costs two seconds
    import torch

    return "" if torch.cuda.is_available() else "needs a CUDA device"


def _no_data() -> str:
    folder = os.environ.get(DATA, "")
    if not folder:
        return f"needs the real data set: {DATA} is not set"
    return "" if Path(folder).is_dir() else f"needs the real data set: {DATA}={folder} is not a folder"


def _not_slow(config: pytest.Config) -> str:
    chosen = config.getoption("--slow") or "slow" in str(config.getoption("markexpr", ""))
    return "" if chosen else "takes minutes: run with --slow"
