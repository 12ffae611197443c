"""RAFT (Teed and Deng, ECCV 2020) of torchvision, for conversions where nobody waits."""

from pickle import UnpicklingError

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.models.optical_flow import RAFT, Raft_Small_Weights, raft_small

from videonst.engines.providers import one_line
from videonst.errors import InputError
from videonst.frame import Pixels
from videonst.temporal.flow import Field, grey_at

SIDE = 432
"""Short side of the working resolution, pixels: that of the Sintel pictures that the weights were tuned on."""

SMALLEST_SIDE = 128
"""Pixels: the coarsest level of the correlations needs 16 cells of 8 pixels."""

MULTIPLE = 8

WEIGHTS_FILE = Raft_Small_Weights.C_T_V2.url.rpartition("/")[2]


class RaftFlow:
    """A `FlowProvider`: torchvision's small RAFT. Grey pictures on all three channels.

    Args:
        model: another network of this kind; None downloads torchvision's weights (4 MB) into its cache.
        device: "cpu" or "cuda".
        side: short side of the working resolution, pixels.

    Raises:
        InputError: the weights cannot be downloaded, or are damaged.
    """

    name = "raft_small C_T_V2"

    def __init__(self, model: RAFT | None = None, device: str = "cpu", side: int = SIDE) -> None:
        if model is None:
            try:
                model = raft_small(weights=Raft_Small_Weights.C_T_V2, progress=False)
            except OSError as error:
                raise InputError(
                    f"cannot download RAFT's weights ({error}); fetch them once on a machine with network, or use "
                    "--flow medium"
                ) from error
            except (RuntimeError, EOFError, UnpicklingError) as error:  # torch's, of a file cut short
                raise InputError(
                    f"RAFT's weights are damaged ({one_line(error)}); delete {WEIGHTS_FILE} in "
                    f"{torch.hub.get_dir()}/checkpoints, or use --flow medium"
                ) from error
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._side = max(side, SMALLEST_SIDE)

    def prepare(self, pixels: Pixels) -> Pixels:
        return grey_at(pixels, self._side, MULTIPLE)

    @torch.inference_mode()
    def flow(self, first: Pixels, second: Pixels) -> Field:
        below, right = (max(SMALLEST_SIDE - length, 0) for length in first.shape)
        tensors = [
            self._tensor(cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE)) for grey in (first, second)
        ]
        found = self._model(*tensors)[-1][0, :, : first.shape[0], : first.shape[1]]
        return np.ascontiguousarray(found.permute(1, 2, 0).cpu().numpy(), np.float32)

    def _tensor(self, grey: Pixels | np.ndarray) -> Tensor:
        """(1, 3, h, w) in [-1, 1]."""
        values = torch.from_numpy(np.asarray(grey)).to(self._device).float() / 127.5 - 1
        return values.expand(1, 3, *values.shape)
