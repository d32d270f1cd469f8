"""Files of public data sets, fetched when asked for: resumed, checked, and never twice.

The standard library does it. Of the libraries at hand, pooch and the loaders of matminer and
jarvis-tools begin anew when they are cut off, and huggingface_hub resumes from its own hub only.
"""

import hashlib
import logging
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable
from gzip import BadGzipFile
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ase_crystalformer.data.registry import DATA_SETS, Download
from ase_crystalformer.errors import DownloadFailed, MissingData, unknown_name

LOGGER = logging.getLogger(__name__)

CHUNK = 1 << 20

#: Attempts in a row that may bring nothing new; seconds before the next; seconds to wait for bytes.
ATTEMPTS, PAUSE, PATIENCE = 5, 2.0, 60.0

#: Answers that may be others a little later; so may all from 500 on.
PASSING = (408, 429)

#: Called with the bytes that are there and the bytes there will be; 0 where nobody says.
Progress = Callable[[int, int], None]


def fetch(name: str, folder: Path | str, *, progress: Progress | None = None) -> list[Path]:
    """Fetch the files of a public data set; what is there already is checked and left.

    Args:
        name: A key of ``DATA_SETS`` with files to fetch, or ``mp`` (see
            :mod:`ase_crystalformer.data.materials_project`).
        folder: Where to; then the folder to name as that of the data sets.
        progress: Called while bytes arrive.

    Returns:
        The files, or the folders they unpack to.

    Raises:
        UnknownName: There is no such data set.
        MissingData: Its files can only be had from where its entry says.
        DownloadFailed: The server cannot be reached, or sends something else. Call again: what
            has arrived is kept.
    """
    if name not in DATA_SETS:
        raise unknown_name("data set", name, DATA_SETS)
    data_set = DATA_SETS[name]
    if name == "mp":
        from ase_crystalformer.data.materials_project import fetch_materials_project

        return [fetch_materials_project(Path(folder) / data_set.file, progress=progress)]
    if not data_set.downloads:
        raise MissingData(
            f"{name} cannot be fetched: it is a set of ours, made from {data_set.url}. Those that "
            f"can: {', '.join(fetchable())}."
        )
    return [fetch_file(one, Path(folder), progress=progress) for one in data_set.downloads]


def fetchable() -> list[str]:
    """Names of the data sets that can be fetched."""
    return [name for name, known in DATA_SETS.items() if known.downloads or name == "mp"]


def fetch_file(download: Download, folder: Path, *, progress: Progress | None = None) -> Path:
    """Fetch one file, check it, and unpack it if it is an archive of databases.

    Raises:
        DownloadFailed: As for :func:`fetch`; or its checksum is another. It is removed then.
    """
    place, path = folder / download.place, folder / download.file
    if place.exists():
        if place.is_file():
            _check(place, download, kept=True)
        return place
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if not path.exists():
        _receive(download, part, progress)
        _check(part, download, kept=False)
        part.rename(path)
        _mark(part).unlink(missing_ok=True)
    return path if place == path else _unpack(path, place)


def _receive(download: Download, part: Path, progress: Progress | None) -> None:
    """Append to the part until it is whole; give up when it grows no longer than it has been."""
    idle, most = 0, _size(part)
    while True:
        try:
            _go_on(download, part, progress)
        except DownloadFailed:
            raise
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError) and error.code < 500 and error.code not in PASSING:
                raise DownloadFailed(
                    f"{download.url} answers {error.code} ({error.reason}). Is it still there? See "
                    "the page of the data set, and put the file into the folder by hand."
                ) from error
            idle = 0 if _size(part) > most else idle + 1
            most = max(most, _size(part))
            if idle == ATTEMPTS:
                raise DownloadFailed(
                    f"{download.url} was cut off after {_size(part):,} bytes "
                    f"({type(error).__name__}: {error}). Call again to go on from there."
                ) from error
            LOGGER.warning("%s was cut off after %s bytes; going on.", download.url, _size(part))
            time.sleep(PAUSE * idle)
        else:
            return


def _go_on(download: Download, part: Path, progress: Progress | None) -> None:
    """Ask for what is missing, and append it.

    A server that has another file by now, or knows no ranges, sends all of it. The part is touched
    only when bytes of the file are there to be written.
    """
    response = _ask(download, part)
    if response is None:
        return
    with response:
        start, total = _extent(response, download, _held(download, part))
        if start and _is_another(part, response, total):
            part.unlink()
            raise ConnectionError("it has changed meanwhile")
        first = response.read(CHUNK)
        if not first:
            raise ConnectionError("nothing came")
        _make_room(part, max(0, total - start))
        with part.open("ab" if start else "wb") as file:
            if not start:
                _remember(part, response, total)
            for chunk in chain([first], iter(lambda: response.read(CHUNK), b"")):
                file.write(chunk)
                if progress:
                    progress(file.tell(), total or download.size)
    if _size(part) < total:
        raise ConnectionError(f"{_size(part):,} of {total:,} bytes came")


def _ask(download: Download, part: Path) -> HTTPResponse | None:
    """Ask for the rest of a file; nothing, if there is no rest."""
    have = _held(download, part)
    request = Request(download.url, headers={"User-Agent": "ase-crystalformer"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if version := _remembered(part)[0]:
            request.add_header("If-Range", version)
    try:
        return urlopen(request, timeout=PATIENCE)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range", "").endswith(f"*/{have}"):
            return None
    part.unlink()  # it is longer than what there is to have
    return _ask(download, part)


def _extent(response: HTTPResponse, download: Download, have: int) -> tuple[int, int]:
    """Where in the file that starts which is sent, and how long the file is; 0 if nobody says.

    Raises:
        DownloadFailed: Something else is sent, such as a page that asks who is there.
    """
    kind = response.headers.get_content_type()
    page = kind == "text/html" and ".htm" not in download.file
    if response.status not in (200, 206) or page:
        raise DownloadFailed(
            f"{download.url} answers {response.status} with {kind}, not with the file. Open it in "
            "a browser, and put the file into the folder by hand; or call again later."
        )
    length = int(response.headers.get("Content-Length") or 0)
    if response.status == 200:
        return 0, length
    sent = response.headers.get("Content-Range", "")
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent)
    if told is None or int(told[1]) != have:
        raise DownloadFailed(
            f"{download.url} sends {sent or 'bytes of somewhere'}, and was asked for those "
            f"from {have} on. Call again; if it comes to the same, remove {download.file}.part."
        )
    return have, int(told[2]) if told[2] != "*" else have + length if length else 0


def _held(download: Download, part: Path) -> int:
    """Bytes that can be gone on from: none where another version would not be noticed."""
    sure = _remembered(part)[0] or download.sha256 or download.md5
    return _size(part) if sure else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _mark(part: Path) -> Path:
    """Where version and length of a file are kept while it is fetched."""
    return part.with_name(part.name + ".etag")


def _version(response: HTTPResponse) -> str:
    """The server's name for the version of a file, or since when it has been so."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _remember(part: Path, response: HTTPResponse, total: int) -> None:
    _mark(part).write_text(f"{_version(response)}\n{total or ''}")


def _remembered(part: Path) -> tuple[str, int]:
    """Version and length as they were told with the first byte; nothing, 0 where they were not."""
    told = _mark(part).read_text() if _mark(part).is_file() else ""
    version, _, total = told.partition("\n")
    return version, int(total or 0)


def _is_another(part: Path, response: HTTPResponse, total: int) -> bool:
    """Whether what goes on is of another version, or of another length, than what began."""
    pairs = zip(_remembered(part), (_version(response), total), strict=True)
    return any(old and new and old != new for old, new in pairs)


def _make_room(part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise DownloadFailed(
            f"{part.parent} has {free:,} bytes left, and {missing:,} are yet to come. Make room, "
            "and call again."
        )


def _check(path: Path, download: Download, *, kept: bool) -> None:
    """Compare length and checksum with what is known; remove what was fetched and is wrong."""
    problem = _problem(path, download)
    if problem is None:
        return
    if not kept:
        path.unlink()
        _mark(path).unlink(missing_ok=True)
    raise DownloadFailed(
        f"{path} {problem}. "
        + (
            "It is another file, or was damaged: move it away, and call again."
            if kept
            else f"It was removed. Call again; if it comes to the same, {download.url} has changed."
        )
    )


def _problem(path: Path, download: Download) -> str | None:
    if download.size and _size(path) != download.size:
        return f"has {_size(path):,} bytes and should have {download.size:,}"
    for kind, wanted in (("sha256", download.sha256), ("md5", download.md5)):
        if wanted:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, kind).hexdigest()
            if found != wanted:
                return f"has the {kind} {found} and should have {wanted}"
    return None


def _unpack(path: Path, place: Path) -> Path:
    """Unpack an archive beside itself, whole or not at all; then remove it."""
    half = place.with_name(place.name + ".unpacking")
    shutil.rmtree(half, ignore_errors=True)
    try:
        with tarfile.open(path) as archive:
            archive.extractall(half, filter="data")
        half.rename(place)
    except (tarfile.TarError, EOFError, BadGzipFile, zlib.error) as error:
        raise _not_unpacked(path, error, "It is damaged: remove it, and call again.") from error
    except OSError as error:
        advice = "It is left as it is: make room, or see that you may write there, and call again."
        raise _not_unpacked(path, error, advice) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    path.unlink()
    return place


def _not_unpacked(path: Path, error: Exception, advice: str) -> DownloadFailed:
    return DownloadFailed(f"{path} cannot be unpacked ({type(error).__name__}: {error}). {advice}")
