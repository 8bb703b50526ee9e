#!/usr/bin/env python3
"""Makes the base images of the examples, tests and benchmarks, as OCI image layouts.

    base_image.py busybox LAYOUT           BusyBox with its applets, root's files only
    base_image.py rich LAYOUT              two layers, several owners, special modes, links, a whiteout and every field
                                           of the configuration; for the tests
    base_image.py onbuild LAYOUT           BusyBox with ONBUILD triggers
    base_image.py tar LAYOUT ROOT.tar CMD  a root that something else made

Needs the standard library only, and no privileges: the layers are written entry by entry, never from a directory, so
owners and devices are what is said here. The same input gives the same bytes.
"""
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile

EPOCH = 1_700_000_000
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
mail:x:8:8:mail:/var/mail:/bin/false
app:x:1000:1000:an application:/home/app:/bin/sh
guest:x:1001:1002:a guest in another group:/home/guest:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUP = """\
root:x:0:
daemon:x:1:
mail:x:8:app
staff:x:50:app
app:x:1000:
guests:x:1002:guest
nogroup:x:65534:
"""
OS_RELEASE = 'PRETTY_NAME="Strata test base (BusyBox)"\nNAME="Strata test base"\nID=strata-test\n'


class Layer:
    """A layer, written entry by entry."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, path, kind, mode=0o644, uid=0, gid=0, content=b"", link="", xattrs=None):
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname = kind, mode, uid, gid, EPOCH, link
        if isinstance(content, str):
            content = content.encode()
        info.size = len(content)
        info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in (xattrs or {}).items()}
        self.tar.addfile(info, io.BytesIO(content))

    def directory(self, path, mode=0o755, **rest):
        self.add(path, tarfile.DIRTYPE, mode, **rest)

    def file(self, path, content, mode=0o644, **rest):
        self.add(path, tarfile.REGTYPE, mode, content=content, **rest)

    def symlink(self, path, to, **rest):
        self.add(path, tarfile.SYMTYPE, 0o777, link=to, **rest)

    def hardlink(self, path, to, mode, **rest):
        self.add(path, tarfile.LNKTYPE, mode, link=to, **rest)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def busybox_program():
    """The statically linked BusyBox of Debian's package, and the names it answers to."""
    program = next((p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p)), None)
    if program is None:
        sys.exit("base_image.py: no busybox; run scripts/setup")
    names = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    with open(program, "rb") as file:
        return file.read(), sorted(names)


def busybox_layer():
    layer = Layer()
    program, names = busybox_program()
    layer.directory("bin")
    layer.file("bin/busybox", program, 0o755)
    for name in names:
        if name != "busybox":
            layer.symlink("bin/" + name, "busybox")
    layer.directory("dev")
    layer.directory("etc")
    layer.file("etc/group", GROUP)
    layer.file("etc/os-release", OS_RELEASE)
    layer.file("etc/passwd", PASSWD)
    layer.directory("home")
    layer.directory("proc")
    layer.directory("root", 0o700)
    layer.directory("sys")
    layer.directory("tmp", 0o1777)
    for path in ("usr", "usr/bin", "usr/sbin", "var", "var/tmp"):
        layer.directory(path, 0o1777 if path == "var/tmp" else 0o755)
    return layer.bytes()


def rich_layers():
    first = Layer()
    first.directory("home/app", 0o750, uid=1000, gid=1000)
    first.file("home/app/.profile", "umask 022\n", 0o640, uid=1000, gid=1000)
    first.directory("srv")
    first.directory("srv/data", 0o2775, uid=1000, gid=50)
    first.file("srv/data/one", "one\n", 0o664, uid=1000, gid=50)
    # Unpackers differ on whether the owner and mode of a link's own entry count, so they are those of the file.
    first.hardlink("srv/data/two", "srv/data/one", mode=0o664, uid=1000, gid=50)
    first.file("srv/doomed", "gone in the next layer\n")
    first.directory("srv/replaced")
    first.file("srv/replaced/old", "hidden by an opaque directory\n")
    first.symlink("srv/current", "data")
    first.symlink("srv/absolute", "/srv/data")
    first.file("usr/bin/special", "#!/bin/sh\nid -u\n", 0o4755)
    first.file("usr/bin/labelled", "labelled\n", 0o755, xattrs={"user.origin": "base"})
    first.add("srv/pipe", tarfile.FIFOTYPE, 0o600)
    second = Layer()
    second.add("srv/.wh.doomed", tarfile.REGTYPE, 0o644)
    second.directory("srv/replaced", 0o700)
    second.add("srv/replaced/.wh..wh..opq", tarfile.REGTYPE, 0o644)
    second.file("srv/replaced/new", "seen\n")
    return [busybox_layer(), first.bytes(), second.bytes()]


RICH_CONFIG = {
    "User": "app:staff",
    "ExposedPorts": {"8080/tcp": {}},
    "Env": [PATH, "ORIGIN=base", "EMPTY="],
    "Entrypoint": ["/bin/busybox", "env"],
    "Cmd": ["sh", "-c", "echo base"],
    "Volumes": {"/srv/volume": {}},
    "WorkingDir": "/srv",
    "Labels": {"org.example.origin": "base", "org.example.kept": "yes"},
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000},
    "Shell": ["/bin/sh", "-ec"],
    "X-Unknown": {"kept": ["as", "it", "is"]},
}


def write_layout(layout, layers, config, history):
    """Writes an image of one manifest. Layers are plain tars; `history` is their `created_by`."""
    machine = ARCHITECTURES.get(platform.machine(), platform.machine())
    temporary = f"{layout}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(f"{temporary}/blobs/sha256")

    def blob(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{temporary}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    created = "2023-11-14T22:13:20Z"
    image = {
        "created": created,
        "architecture": machine,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
        "history": [{"created": created, "created_by": text} for text in history],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(image).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            blob(gzip.compress(layer, 6, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers
        ],
    }
    entry = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    entry["platform"] = {"architecture": machine, "os": "linux"}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    with open(f"{temporary}/index.json", "w", encoding="ascii") as file:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
    with open(f"{temporary}/oci-layout", "w", encoding="ascii") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)
    shutil.rmtree(layout, ignore_errors=True)
    os.rename(temporary, layout)


def main(arguments):
    match arguments:
        case ["busybox", layout]:
            write_layout(layout, [busybox_layer()], {"Env": [PATH], "Cmd": ["sh"]}, ["base_image.py busybox"])
        case ["rich", layout]:
            write_layout(layout, rich_layers(), RICH_CONFIG, [f"base_image.py rich {n}" for n in range(3)])
        case ["onbuild", layout]:
            triggers = ["COPY trigger.txt /from-trigger", "RUN echo ran >/ran-by-trigger", "ENV TRIGGERED=yes"]
            config = {"Env": [PATH], "Cmd": ["sh"], "WorkingDir": "/", "OnBuild": triggers}
            write_layout(layout, [busybox_layer()], config, ["base_image.py onbuild"])
        case ["tar", layout, root, command]:
            with open(root, "rb") as file:
                write_layout(layout, [file.read()], {"Env": [PATH], "Cmd": [command]}, [f"base_image.py {os.path.basename(root)}"])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
