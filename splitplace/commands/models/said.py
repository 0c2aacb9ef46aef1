"""What the user says of pictures, over what is recognised in the file."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from splitplace.errors import ConfigurationError
from splitplace.messages.pictures import INTERPOLATIONS, Fit, Interpolation, PictureInput
from splitplace.messages.validation_errors import problem_of
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError


@dataclass(frozen=True)
class Said:
    """Flags about pixels; None or empty = not said."""

    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    white: float | None = None
    is_bgr: bool = False
    is_inverted: bool = False
    fit: Fit | None = None
    crop_share: float | None = None
    padding: int | None = None
    interpolation: Interpolation | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The flags that are given."""
        given = {
            "--mean": self.mean,
            "--std": self.std,
            "--white": self.white is not None,
            "--bgr": self.is_bgr,
            "--invert": self.is_inverted,
            "--fit": self.fit,
            "--crop": self.crop_share is not None,
            "--padding": self.padding is not None,
            "--interpolation": self.interpolation,
        }
        return tuple(name for name, value in given.items() if value)

    def over(self, found: PictureInput, channels: int) -> PictureInput:
        """Return what is recognised, with what the user says in its place.

        Raises:
            UserNetworkError: It does not fit pictures of so many channels.
        """
        changes: dict[str, object] = {
            "mean": tuple(self.mean) or found.mean,
            "deviation": tuple(self.std) or found.deviation,
            "white": found.white if self.white is None else self.white,
            "colours": "bgr" if self.is_bgr else found.colours,
            "invert": self.is_inverted or found.invert,
            "fit": self.fit or ("crop" if self.crop_share is not None else found.fit),
            "crop_share": found.crop_share if self.crop_share is None else self.crop_share,
            "padding": found.padding if self.padding is None else self.padding,
            "interpolation": self.interpolation or found.interpolation,
        }
        if self.names:
            changes["rule"] = f"as said by {', '.join(self.names)}; the rest: {found.rule}"
        try:
            chosen = PictureInput.model_validate({**found.model_dump(), **changes})
            filled = preprocessing_of(chosen, channels)
        except ValidationError as error:
            raise UserNetworkError(f"not a preprocessing: {problem_of(error.errors()[0])}") from error
        except ValueError as error:
            raise UserNetworkError(str(error)) from error
        return chosen.model_copy(update={"mean": filled.mean, "deviation": filled.deviation})


def preprocessing_of(pictures: PictureInput, channels: int) -> Preprocessing:
    """Return the part of it that the first stage computes. Raises ValueError."""
    return Preprocessing.for_channels(
        channels,
        pictures.mean,
        pictures.deviation,
        pictures.white,
        is_bgr=pictures.colours == "bgr",
        is_inverted=pictures.invert,
    )


def described(pictures: PictureInput) -> str:
    """Write a preprocessing for people, in one line."""
    parts = [
        pictures.colours.upper() if pictures.colours != "grey" else "grey",
        f"0 to {pictures.white:g}",
        *([f"mean {_shown(pictures.mean)}"] if any(pictures.mean) else []),
        *([f"deviation {_shown(pictures.deviation)}"] if set(pictures.deviation) - {1.0} else []),
        *(["inverted"] if pictures.invert else []),
        pictures.fit
        + {"crop": f" {pictures.crop_share:g}", "pad": f" {pictures.padding}"}.get(pictures.fit, ""),
        pictures.interpolation,
    ]
    return f"{', '.join(parts)} ({pictures.rule})"


def _shown(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in values)


def interpolation_of(text: str) -> Interpolation | None:
    """Return what `--interpolation` says. Raises ConfigurationError."""
    found = next((each for each in INTERPOLATIONS if each == text), None)
    if text and found is None:
        raise ConfigurationError(f"--interpolation is one of {', '.join(INTERPOLATIONS)}")
    return found
