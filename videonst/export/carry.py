"""The graph that carries the history on a device: what `videonst.temporal.carry.HostCarry` does, in ONNX.

Opset 18, and only operators that ONNX Runtime has CUDA kernels for; nothing but shapes is computed on the processor,
so the places of the pixels are counted (`CumSum`) rather than made from a size.
"""

import onnx
import onnx.checker
import onnx.parser

from videonst.temporal.carry import CLAMP_WINDOW, SLACK, TRUSTED


def carry_graph() -> onnx.ModelProto:
    """The content of `videonst.temporal.carry.GRAPH`.

    Inputs: `painting` uint8 (1, H, W, 3); `history` float32 (1, H, W, 3), levels; `motion` float32 (1, 2, h, w), from
    every pixel to where it was, x then y, in pixels of (H, W); `trust` float32 (1, 1, h, w); `share` and `follow`
    float32 (1). Outputs: `carried`, the new history, and `shown`, the same in whole levels.
    """
    model = onnx.parser.parse_model(_TEXT)
    onnx.checker.check_model(model, full_check=True)
    return model


_WINDOW = f"kernel_shape = [{CLAMP_WINDOW}, {CLAMP_WINDOW}], pads = [{', '.join([str(CLAMP_WINDOW // 2)] * 4)}]"
_LINEAR = 'mode = "linear", coordinate_transformation_mode = "half_pixel"'
_NEAREST = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'


def _places(axis: str, shape: str) -> str:
    """Nodes that give `grid_x` or `grid_y`, -1 to 1: the places of the pixels, counted along ones of `shape`, moved by
    `dx` or `dy`."""
    return f"""
    ones_{axis} = ConstantOfShape <value = float[1] {{1}}> ({shape})
    counted_{axis} = CumSum (ones_{axis}, first)
    {axis} = Sub (counted_{axis}, half)
    length_{axis} = ReduceSum <keepdims = 0> (ones_{axis})
    there_{axis} = Add ({axis}, d{axis})
    double_{axis} = Mul (there_{axis}, two)
    share_{axis} = Div (double_{axis}, length_{axis})
    grid_{axis} = Sub (share_{axis}, one)"""


_TEXT = f"""
<ir_version: 8, opset_import: ["" : 18], producer_name: "videonst">
carry (
    uint8[1, H, W, 3] painting, float[1, H, W, 3] history, float[1, 2, h, w] motion, float[1, 1, h, w] trust,
    float[1] share, float[1] follow
) => (float[1, H, W, 3] carried, uint8[1, H, W, 3] shown)
<
    float zero = {{0}}, float half = {{0.5}}, float one = {{1}}, float two = {{2}}, float white = {{255}},
    float slack = {{{SLACK}}}, float trusted = {{{TRUSTED}}}, int64 first = {{0}}, int64[2] all_pixels = {{2, 3}},
    int64[1] single = {{1}}, int64[2] plane = {{1, 1}}, int64[2] pair = {{1, 2}}, int64[2] colours = {{1, 3}}
>
{{
    frame_size = Shape <start = 1, end = 3> (painting)
    rows = Shape <start = 1, end = 2> (painting)
    columns = Shape <start = 2, end = 3> (painting)
    cells = Shape <start = 2, end = 4> (trust)

    painting_planes = Transpose <perm = [0, 3, 1, 2]> (painting)
    new = Cast <to = 1> (painting_planes)
    old = Transpose <perm = [0, 3, 1, 2]> (history)

    motion_size = Concat <axis = 0> (pair, frame_size)
    full_motion = Resize <{_LINEAR}> (motion, , , motion_size)
    dx, dy = Split <axis = 1, num_outputs = 2> (full_motion)

    column_size = Concat <axis = 0> (rows, single)
{_places("x", "columns")}
{_places("y", "column_size")}
    grid_planes = Concat <axis = 1> (grid_x, grid_y)
    grid = Transpose <perm = [0, 2, 3, 1]> (grid_planes)
    sampled = GridSample <mode = "bicubic", padding_mode = "border", align_corners = 0> (old, grid)
    still_x = Equal (dx, zero)
    still_y = Equal (dy, zero)
    still = And (still_x, still_y)
    moved = Where (still, old, sampled)

    difference = Sub (new, moved)
    few_size = Concat <axis = 0> (colours, cells)
    few = Resize <{_NEAREST}> (difference, , , few_size)
    is_trusted = Greater (trust, trusted)
    counts = Cast <to = 1> (is_trusted)
    counted = Mul (few, counts)
    total = ReduceSum <keepdims = 1> (counted, all_pixels)
    number = ReduceSum <keepdims = 1> (counts, all_pixels)
    divisor = Max (number, one)
    mean = Div (total, divisor)
    followed = Mul (mean, follow)
    lit = Add (moved, followed)

    highest = MaxPool <{_WINDOW}> (new)
    upwards = Add (highest, slack)
    upper = Min (upwards, white)
    negative = Neg (new)
    negative_lowest = MaxPool <{_WINDOW}> (negative)
    lowest = Neg (negative_lowest)
    downwards = Sub (lowest, slack)
    lower = Max (downwards, zero)
    not_below = Max (lit, lower)
    clamped = Min (not_below, upper)

    cell_weight = Mul (trust, share)
    weight_size = Concat <axis = 0> (plane, frame_size)
    weight = Resize <{_LINEAR}> (cell_weight, , , weight_size)
    away = Sub (clamped, new)
    kept = Mul (away, weight)
    blended = Add (kept, new)

    carried = Transpose <perm = [0, 2, 3, 1]> (blended)
    rounded = Round (carried)
    within = Clip (rounded, zero, white)
    shown = Cast <to = 2> (within)
}}
"""
