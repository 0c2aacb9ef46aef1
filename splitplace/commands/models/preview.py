"""`splitplace models add --preview`: the picture that a network will see."""

from pathlib import Path

import numpy as np
from PIL import Image

from splitplace.messages.pictures import PictureInput
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.pictures import decode
from splitplace.services.gateway.refusals import TaskRefusedError
from splitplace.workshop.user_networks.reading import UserNetworkError


def write_preview(photo: Path, application: str, spec: TensorSpec, how: PictureInput) -> tuple[Path, str]:
    """Write what the network sees of a picture into the current folder, as the gateway makes it.

    Colours are shown as people see them, also where the network takes blue first.

    Returns:
        The file, and what the gateway says of the picture.

    Raises:
        UserNetworkError: The picture cannot be read, or the network takes none.
    """
    try:
        (pixels,), warnings, _ = decode((photo.read_bytes(),), spec, how)
        shown = 255 - pixels if how.invert else pixels
        place = Path(f"{application}-sees-{photo.stem}.png")
        Image.fromarray(np.moveaxis(shown, 0, -1).squeeze()).save(place)
    except TaskRefusedError as error:
        raise UserNetworkError(f"--preview {photo}: {error}") from error
    except OSError as error:
        raise UserNetworkError(f"--preview: {error}") from error
    return place, "; ".join(warnings)
