"""Folders in the user's cache: what can be made again. Where nothing can be kept there, the work goes on without."""

import warnings
from pathlib import Path

from capcsim.errors import CapcsimWarning, HostError
from capcsim.files import make_folder, replacing, write_private
from capcsim.paths import NAME_A_CACHE, cache_folder


class Cache:
    """One folder of whole files, which its user alone may read.

    A file that cannot be read counts as absent. Where one cannot be written, or no cache folder is known, a
    CapcsimWarning says so; `folder` is None in the latter case.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """The folder of this name in the user's cache, or another."""
        self.folder = self._told = folder
        if folder is None:
            try:
                # What holds for one folder of the cache holds for all, and is said once.
                self._told = cache_folder()
                self.folder = self._told / name
            except HostError as error:
                tell_unkept(error)

    def read(self, name: str) -> bytes | None:
        """A file's bytes, or None."""
        try:
            return None if self.folder is None else (self.folder / name).read_bytes()
        except OSError:
            return None

    def write(self, name: str, content: bytes) -> bool:
        """Keep a file, whole; says whether that was possible."""
        if self.folder is None:
            return False
        try:
            make_folder(self.folder, 0o700)
            with replacing(self.folder / name) as fresh:
                write_private(fresh, content)
        except HostError as error:
            if (self.folder / name).is_dir():
                tell_unkept(HostError(str(self.folder / name), error.reason, "remove it"))
            else:
                tell_unkept(HostError(str(self._told), error.reason, NAME_A_CACHE))
            return False
        return True


def tell_unkept(error: HostError) -> None:
    """Warn that the work goes on, but has to be done again another time."""
    lost = "what is measured, trained or compiled cannot be kept for another time"
    warnings.warn(CapcsimWarning(f"{error.place}: {error.reason}; {lost}; {error.remedy}"), stacklevel=2)
