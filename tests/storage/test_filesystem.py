"""Where SQLite loses data is no place for a study."""

from pathlib import Path

import pytest

from deepmine_auto.errors import BadInput
from deepmine_auto.storage import sqlite
from deepmine_auto.storage.filesystem import NETWORK_FILESYSTEMS, filesystem_of
from deepmine_auto.storage.sqlite import file_of

MOUNTS = """\
overlay / overlay rw 0 0
server:/x /home/me/my\\040share nfs4 rw 0 0
tmpfs /home/me/my\\040share/fast tmpfs rw 0 0
//host/y /mnt/y cifs rw 0 0
/dev/sda /covered ext4 rw 0 0
server:/z /covered nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me", "overlay"),
        ("/home/me/my share", "nfs4"),
        ("/home/me/my share/deep/er", "nfs4"),
        ("/home/me/my share/fast", "tmpfs"),
        ("/mnt/yes", "overlay"),
        ("/mnt/y/z", "cifs"),
        ("/covered", "nfs"),
    ],
)
def test_the_filesystem_of_a_folder_is_that_of_the_nearest_mount(tmp_path, folder, kind):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert filesystem_of(Path(folder), str(tmp_path / "mounts")) == kind


def test_where_the_system_does_not_say_nothing_is_refused(tmp_path):
    assert filesystem_of(tmp_path, str(tmp_path / "none")) == ""


def test_a_network_filesystem_is_refused_through_a_link_too(tmp_path, monkeypatch):
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    monkeypatch.setattr(sqlite, "filesystem_of", lambda folder: "nfs4" if folder == share else "ext4")
    for folder in (share, tmp_path / "link"):
        with pytest.raises(BadInput, match=r"lies on a network filesystem \(nfs4\).*Use a local disk"):
            file_of(str(folder / "studies.db"))
    assert file_of(str(tmp_path / "studies.db"))


OF_CLUSTERS = """\
/dev/sda / ext4 rw 0 0
10.0.0.1@tcp:/one /scratch lustre rw,flock 0 0
two /gpfs gpfs rw,relatime 0 0
beegfs_nodev /bee beegfs rw,cfgFile=/etc/beegfs/beegfs-client.conf 0 0
10.0.0.2:6789:/ /ceph ceph rw 0 0
ceph-fuse /ceph-fuse fuse.ceph-fuse rw 0 0
server:/three /gluster fuse.glusterfs rw 0 0
"""


@pytest.mark.parametrize("place", ["scratch", "gpfs", "bee", "ceph", "ceph-fuse", "gluster"])
def test_the_filesystems_of_clusters_are_network_filesystems(tmp_path, place):
    (tmp_path / "mounts").write_text(OF_CLUSTERS)
    assert filesystem_of(Path("/") / place / "me", str(tmp_path / "mounts")) in NETWORK_FILESYSTEMS


def test_what_a_container_or_a_laptop_has_is_no_network_filesystem():
    assert not NETWORK_FILESYSTEMS & {"overlay", "fuse.fuse-overlayfs", "fuseblk", "ext4", "xfs", "btrfs", "tmpfs"}
