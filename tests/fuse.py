"""A FUSE file system without hard links and without RENAME_NOREPLACE, as Google Drive's and others are.

    python -m tests.fuse FOLDER MOUNTPOINT [caseless] [poor]     passes a folder through, until it is unmounted

``caseless``: it takes ``a`` and ``A`` for one name, as the disks of Macs and Windows do. ``poor``: it refuses fsync(2),
and renames onto no file that is there.

It speaks the kernel's protocol over /dev/fuse (struct layouts: <linux/fuse.h>, 7.31), so it needs no library,
only root. One thread, one request at a time; nothing is cached by the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

from tests import ROOT
from tests.servers import die_with_parent

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME = 1, 2, 3, 4, 9, 10, 11, 12
LINK, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT = 13, 14, 15, 16, 17, 18, 20, 25, 26
OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT, DESTROY, BATCH_FORGET = (
    27,
    28,
    29,
    30,
    35,
    36,
    38,
    42,
)
RENAME2 = 45
_MOST = 128 * 1024  # bytes of one write


class PassThrough:
    """Answers the kernel's requests from a folder."""

    def __init__(self, folder: str, device: int, *, caseless: bool = False, poor: bool = False) -> None:
        self.device = device
        self.caseless = caseless
        self.poor = poor
        self.paths = {1: folder}
        self.ids = {folder: 1}
        self.next = 2

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self.device, _MOST + 65536)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            try:
                answer, code = self.answer(opcode, node, request[40:]), 0
            except OSError as error:
                answer, code = b"", -(error.errno or errno.EIO)
            try:
                os.write(self.device, struct.pack("<IiQ", 16 + len(answer), code, unique) + answer)
            except FileNotFoundError:
                pass  # the request was interrupted meanwhile

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        path = self.paths.get(node, "")
        if opcode == INIT:
            return struct.pack("<IIIIHHIIHHIIH22x", 7, 31, _MOST, 0, 12, 9, _MOST, 1, 0, 0, 0, 0, 0)
        if opcode == LOOKUP:
            return self.entry(self.child(path, body[:-1]))
        if opcode == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(path)
        if opcode == SETATTR:
            return self.set_attributes(path, body)
        if opcode == MKDIR:
            mode, _ = struct.unpack_from("<II", body)
            target = self.child(path, body[8:-1])
            os.mkdir(target, mode & 0o7777)
            return self.entry(target)
        if opcode == UNLINK:
            os.unlink(self.child(path, body[:-1]))
            return b""
        if opcode == RMDIR:
            os.rmdir(self.child(path, body[:-1]))
            return b""
        if opcode == RENAME:
            new_parent = self.paths[struct.unpack_from("<Q", body)[0]]
            old, new = body[8:-1].split(b"\0")
            return self.rename(self.child(path, old), self.child(new_parent, new))
        if opcode == RENAME2:
            raise OSError(errno.EINVAL, "no flags")
        if opcode == LINK:
            raise OSError(errno.EPERM, "no hard links")
        if opcode == CREATE:
            flags, mode = struct.unpack_from("<II", body)
            target = self.child(path, body[16:-1])
            handle = os.open(target, flags | os.O_CREAT, mode & 0o7777)
            return self.entry(target) + struct.pack("<QII", handle, 1, 0)  # 1: direct I/O
        if opcode in (OPEN, OPENDIR):
            flags = struct.unpack_from("<I", body)[0] & ~(os.O_EXCL | os.O_CREAT)
            return struct.pack("<QII", os.open(path, flags), 1, 0)
        if opcode == READ:
            handle, offset, size = struct.unpack_from("<QQI", body)
            return os.pread(handle, size, offset)
        if opcode == WRITE:
            handle, offset, size = struct.unpack_from("<QQI", body)
            return struct.pack("<II", os.pwrite(handle, body[40 : 40 + size], offset), 0)
        if opcode == READDIR:
            return self.read_folder(path, *struct.unpack_from("<QQI", body)[1:])
        if opcode == STATFS:
            have = os.statvfs(path)
            free = (have.f_blocks, have.f_bfree, have.f_bavail, have.f_files, have.f_ffree)
            return struct.pack("<5Q4I24x", *free, have.f_bsize, 255, have.f_frsize, 0)
        if opcode in (FSYNC, FSYNCDIR) and self.poor:
            raise OSError(errno.EOPNOTSUPP, "no flush")
        if opcode == FSYNC:
            os.fsync(struct.unpack_from("<Q", body)[0])
            return b""
        if opcode in (RELEASE, RELEASEDIR):
            os.close(struct.unpack_from("<Q", body)[0])
            return b""
        if opcode in (FLUSH, DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "not here")

    def child(self, path: str, name: bytes) -> str:
        text = os.fsdecode(name)
        return f"{path}/{text.lower() if self.caseless else text}"

    def entry(self, path: str) -> bytes:
        attributes = self.attributes(path)  # raises where there is none
        if path not in self.ids:
            self.ids[path], self.paths[self.next] = self.next, path
            self.next += 1
        return struct.pack("<QQQQII", self.ids[path], 0, 0, 0, 0, 0) + attributes

    @staticmethod
    def attributes(path: str) -> bytes:
        info = os.lstat(path)
        seconds = [divmod(value, 10**9) for value in (info.st_atime_ns, info.st_mtime_ns, info.st_ctime_ns)]
        first = (info.st_ino, info.st_size, info.st_blocks, *(pair[0] for pair in seconds))
        last = (info.st_mode, info.st_nlink, info.st_uid, info.st_gid, 0, 4096, 0)
        return struct.pack("<6Q3I7I", *first, *(pair[1] for pair in seconds), *last)

    def set_attributes(self, path: str, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime = struct.unpack_from("<IIQQQQQ", body)
        atime_part, mtime_part, _, mode = struct.unpack_from("<4I", body, 56)
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 8:
            os.truncate(path, size)
        if valid & (16 | 32):
            now, before = time.time_ns(), os.stat(path)
            new_atime = now if valid & 128 else atime * 10**9 + atime_part
            new_mtime = now if valid & 256 else mtime * 10**9 + mtime_part
            times = (
                new_atime if valid & 16 else before.st_atime_ns,
                new_mtime if valid & 32 else before.st_mtime_ns,
            )
            os.utime(path, ns=times)
        return struct.pack("<QII", 0, 0, 0) + self.attributes(path)

    def rename(self, old: str, new: str) -> bytes:
        if self.poor and os.path.lexists(new):
            raise OSError(errno.EEXIST, "no rename onto a file")
        os.rename(old, new)
        self.ids.pop(new, None)
        for path, node in list(self.ids.items()):
            if path == old or path.startswith(old + "/"):
                del self.ids[path]
                moved = new + path[len(old) :]
                self.ids[moved], self.paths[node] = node, moved
        return b""

    @staticmethod
    def read_folder(path: str, offset: int, size: int) -> bytes:
        answer = b""
        for index, name in enumerate(sorted(os.listdir(path))[offset:], offset + 1):
            raw = os.fsencode(name)
            kind = stat.S_IFMT(os.lstat(f"{path}/{name}").st_mode) >> 12
            record = struct.pack("<QQII", index, index, len(raw), kind) + raw
            record += b"\0" * (-len(record) % 8)
            if len(answer) + len(record) > size:
                break
            answer += record
        return answer


class FuseMount:
    """A folder passed through a FUSE mount without hard links. Needs root and /dev/fuse. ``options`` as above.

    Raises:
        OSError: it can't be mounted here.
    """

    def __init__(self, folder: Path, point: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        point.mkdir(exist_ok=True)
        self.point = point
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fuse",
                str(folder),
                str(point),
                *options,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().decode().strip()
        if said != "ready":
            self.close()
            raise OSError(f"no FUSE mount here: {said}")

    def close(self) -> None:
        """Unmount and end the process."""
        unmount(self.point)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def mount(source: str, point: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = source.encode(), os.fsencode(point), kind.encode(), ctypes.c_ulong(flags), options.encode()
    if libc.mount(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(point))


def unmount(point: Path) -> None:
    """umount2(2), lazily; not being mounted is no error."""
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(point), 2)


def main(folder: str, point: str, *options: str) -> None:
    """Mount, say so, serve."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
        mount("vaultlayer", Path(point), "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")
    except OSError as error:
        print(error, flush=True)
        return
    print("ready", flush=True)
    PassThrough(folder, device, caseless="caseless" in options, poor="poor" in options).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
