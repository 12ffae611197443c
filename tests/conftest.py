"""Fixtures shared by the tests: where the data lies, small pictures, a perceptual network that needs no download."""

import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""For torch, imported later, and for processes that tests start: the networks here are small, and threads that wait for
a core that others use make them ten times slower."""

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
"""The same examples in every run; HYPOTHESIS_PROFILE=default looks for new ones."""

LEAVE_SECONDS = 60
"""How long the threads that tests have left behind may keep the finished suite from exiting."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """A thread that a test has forgotten must not hang the suite: say where it waits, then leave."""

    def leave() -> None:
        time.sleep(LEAVE_SECONDS)
        print("the suite is done, but these threads keep it from exiting:", file=sys.__stderr__)
        faulthandler.dump_traceback(file=sys.__stderr__)
        os._exit(exitstatus)

    threading.Thread(target=leave, name="leave", daemon=True).start()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A suite in the background (`pytest &`) inherits an ignored SIGINT, and so would the processes it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of shared test data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("VIDEONST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set VIDEONST_DATA")
    return folder


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """A photograph, RGB uint8, 360 x 360."""
    import cv2

    return cv2.cvtColor(cv2.imread(str(ROOT / "videonst" / "samples" / "portrait.jpg")), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="session")
def random_vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG-19's shape with random weights: gradients flow through it as through the real one."""
    torch = pytest.importorskip("torch", reason="needs the [train] extra")
    from safetensors.torch import save_file
    from torchvision.models import vgg19

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "random.safetensors"
    features = vgg19(weights=None).features[:30]
    save_file({f"features.{k}": v for k, v in features.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def small_network():  # type: ignore[no-untyped-def]
    """A network of tier tiny with random weights and three styles, a, b and c, that differ."""
    torch = pytest.importorskip("torch", reason="needs the [train] extra")
    from videonst.network import StyleNetwork

    torch.manual_seed(0)
    network = StyleNetwork("tiny", 3)
    torch.nn.init.normal_(network.bank, 1.0, 0.5)
    return network


@pytest.fixture(scope="session")
def small_model(small_network, portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """`small_network` as an ONNX file, with thumbnails."""
    pytest.importorskip("onnxscript", reason="needs the [train] extra")
    from videonst.engines.metadata import StyleInfo, TrainingInfo
    from videonst.export import export_onnx

    path = tmp_path_factory.mktemp("model") / "small.onnx"
    styles = [StyleInfo(name=n, title=n.upper(), artist="Hokusai", year="1831", licence="CC0") for n in "abc"]
    training = TrainingInfo(recipe={"tier": "tiny", "steps": 7}, steps=7, commit="abc123", data="noise")
    export_onnx(small_network, path, styles=styles, training=training, photo=portrait)
    return path
