"""A node's disk: fetched files and prepared forms, within one bound. Blocks: call it in a thread.

Forms may take half of it. Forms that nobody maps make room first: they can be made again from files, while
files must be fetched.
"""

import contextlib
from pathlib import Path

from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.storage.set_aside import check_folder

FILES = "files"
FORMS = "prepared"
_OLD_FILES = ("*.onnx", "*.onnx.partial", "*.partial")


class NodeDisk:
    """The folders of one node."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open the folders, and remove what a crash or SplitPlace 0.2 has left.

        Args:
            folder: Folder of this node.
            max_bytes: Bound of files and forms together.

        Raises:
            ConfigurationError: The folder is not a folder, or not ours.
            OSError: One of those in it is not a folder, or not ours.
        """
        check_folder(folder, "--fragment-dir")
        self.forms = PreparedForms(folder / FORMS, max_bytes // 2, grows=self._grows)
        self.files = FragmentStore(folder / FILES, max_bytes, self.forms)
        for pattern in _OLD_FILES:
            for path in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _grows(self, form_bytes: int) -> None:
        self.files.make_room(form_bytes)
