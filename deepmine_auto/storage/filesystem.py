"""On what a folder lies: SQLite loses data on a filesystem that other machines write to."""

from __future__ import annotations

import re
from pathlib import Path

NETWORK_FILESYSTEMS = frozenset(  # as /proc/mounts calls them
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs"}
    | {f"fuse.{each}" for each in ("sshfs", "s3fs", "gcsfuse", "rclone", "glusterfs", "ceph", "ceph-fuse", "davfs")}
)


def filesystem_of(folder: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the filesystem that holds a folder, or an empty string where the system does not say."""
    try:
        rows = [line.split()[1:3] for line in Path(mounts).read_text().splitlines()]
    except OSError:
        return ""
    above = {str(each) for each in (folder, *folder.parents)}
    holding = [(len(place), at, kind) for at, (place, kind) in enumerate(rows) if _unescaped(place) in above]
    return max(holding)[2] if holding else ""  # of two at one place, the later one covers the other


def _unescaped(place: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), place)  # a blank is written \040
