"""The networks of our own: sizes as published, for small pictures too."""

import pytest
import torch

from splitplace.workshop.networks.catalogue import NETWORKS, PRINTED_SIDES, network
from splitplace.workshop.networks.common import Pixels, scaled
from splitplace.workshop.networks.resnet_v2 import ResNetV2, stem_for
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.sessions import session_of

PUBLISHED_MILLIONS = {
    "resnet50_v2": 25.5,
    "resnet34_v2": 21.8,
    "mobilenet_v2": 3.5,
    "inception_v3": 23.8,
    "vision_transformer": 5.7,
}


def weights(name: str, outputs: int, side: int, width: float = 1.0) -> int:
    """Counted without drawing any."""
    with torch.device("meta"):
        made = network(name, outputs, side=side, width=width)
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_full_size_networks_have_as_many_weights_as_published(name: str) -> None:
    assert round(weights(name, 1000, PRINTED_SIDES[name]) / 1e6, 1) == PUBLISHED_MILLIONS[name]


@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_small_pictures_of_any_channels(name: str, side: int) -> None:
    torch.manual_seed(0)
    made = network(name, 7, side=side, pixels=Pixels((33.3,), (78.6,)), width=0.25).eval()
    images = torch.randint(0, 256, (2, 1, side, side), dtype=torch.uint8)
    with torch.inference_mode():
        features = made.features(images)  # type: ignore[operator]
        logits = made(images)
        torch.testing.assert_close(made.classifier(features), logits)  # type: ignore[operator]
    assert features.ndim == 2
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_pictures_are_enlarged_before_the_first_layer_by_the_exported_network_too() -> None:
    pixels = Pixels((33.3,), (78.6,), zoom=32 / 28)
    images = torch.full((2, 1, 28, 28), 112, dtype=torch.uint8)
    torch.testing.assert_close(pixels(images), torch.full((2, 1, 32, 32), 1.0), atol=1e-2, rtol=0)
    images = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    exported = session_of(export_network(pixels, images.numpy()))
    (found,) = exported.run(None, {"images": images[:1].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), pixels(images[:1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_the_width_leaves_about_a_quarter_of_the_weights(name: str) -> None:
    share = weights(name, 10, 32, width=0.5) / weights(name, 10, 32)
    assert 0.2 < share < 0.45


@pytest.mark.parametrize(
    ("channels", "multiplier", "expected"),
    [(30, 1.0, 30), (32, 0.5, 16), (32, 0.1, 8), (64, 1.25, 80), (24, 0.75, 24), (16, 0.75, 16)],
)
def test_scaled_widths_are_multiples_of_eight_and_lose_little(
    channels: int, multiplier: float, expected: int
) -> None:
    assert scaled(channels, multiplier) == expected


@pytest.mark.parametrize(("side", "maps"), [(32, 32), (64, 64), (96, 48), (224, 56)])
def test_the_stem_leaves_maps_of_a_size_to_work_with(side: int, maps: int) -> None:
    made = ResNetV2(10, widths=(8,), blocks=(1,), pixels=Pixels((0.0,), (1.0,)), stem=stem_for(side))
    assert made.stem(torch.zeros(1, 1, side, side)).shape[2:] == (maps, maps)


def test_a_transformer_refuses_pictures_that_cannot_be_divided_into_patches() -> None:
    with pytest.raises(ValueError, match="patches of 16"):
        network("vision_transformer", 10, side=100)


def test_an_unknown_network_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"no network 'vgg'.*mobilenet_v2"):
        network("vgg", 10, side=32)
