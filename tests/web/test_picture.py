"""Pictures from outside: their size is known before they are decoded, and nothing that is sent can do harm."""

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from videonst.errors import InputError
from videonst.web.picture import declared_size, decode, encode

NOISE = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
ALPHA = np.dstack([NOISE, np.full((37, 61), 90, np.uint8)])


def encoded(suffix: str, picture: np.ndarray = NOISE, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


PICTURES = {
    "jpeg": encoded(".jpg"),
    "progressive jpeg": encoded(".jpg", NOISE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "grey jpeg": encoded(".jpg", NOISE[..., 0]),
    "png": encoded(".png"),
    "lossy webp": encoded(".webp", NOISE, cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless webp": encoded(".webp", NOISE, cv2.IMWRITE_WEBP_QUALITY, 101),
    "webp with alpha": encoded(".webp", ALPHA, cv2.IMWRITE_WEBP_QUALITY, 80),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_size_is_read_from_the_header(data: bytes):
    assert declared_size(data) == (61, 37)
    assert decode(data, max_pixels=61 * 37).shape == (37, 61, 3)
    with pytest.raises(InputError, match="61x37; expected at most"):
        decode(data, max_pixels=61 * 37 - 1)


def test_jpeg_size_behind_other_segments():
    exif = b"\xff\xe1" + (2 + 5000).to_bytes(2, "big") + bytes(5000)
    data = PICTURES["jpeg"]
    assert declared_size(data[:2] + exif + b"\xff" + data[2:]) == (61, 37)


def test_a_bomb_is_not_decoded():
    data = bytearray(PICTURES["png"])
    data[16:24] = b"\x00\x00\xff\xff" * 2
    with pytest.raises(InputError, match="65535x65535"):
        decode(bytes(data), max_pixels=1_000_000)


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize("keep", [0, 1, 9, 20, 28])
def test_cut_off_in_the_header(data: bytes, keep: int):
    with pytest.raises(InputError):
        decode(data[:keep], max_pixels=10_000)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"]))
def test_noise_is_refused(noise: bytes, head: bytes):
    with pytest.raises(InputError):
        decode(head + noise, max_pixels=10_000)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PICTURES)), st.integers(30, 400), st.integers(0, 255))
def test_damaged_pictures_are_refused_or_have_their_size(name: str, place: int, value: int):
    data = bytearray(PICTURES[name])
    data[place % len(data)] = value
    try:
        picture = decode(bytes(data), max_pixels=100_000)
    except InputError:
        return
    assert picture.shape[0] * picture.shape[1] <= 100_000


def test_round_trip():
    smooth = cv2.GaussianBlur(NOISE, (0, 0), 4)
    assert np.array_equal(decode(encode(smooth, "png", 1), max_pixels=10_000), smooth)
    for form in ("jpeg", "webp"):
        again = decode(encode(smooth, form, 95), max_pixels=10_000)
        assert np.abs(again.astype(int) - smooth).mean() < 3
