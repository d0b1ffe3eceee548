"""Refuses a change of the contract that would break a client of main: `buf breaking` against the commit before ours.

On a branch that is where it left main; on main itself it is the commit before.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEW = ROOT / "gen" / "baton" / "descriptors.binpb"


def git(*arguments: str) -> str | None:
    """What git answers, or None when it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout.strip() if done.returncode == 0 else None


def base_commit() -> str | None:
    """The commit to compare with, or None when there is none yet."""
    head = git("rev-parse", "HEAD")
    for main in ("origin/main", "main"):
        base = git("merge-base", main, "HEAD")
        if base is not None and base != head:
            return base
    return git("rev-parse", "HEAD^")


def main() -> None:
    base = base_commit()
    if base is None or git("cat-file", "-e", f"{base}:protos/compile.py") is None:
        print("breaking: there is no earlier contract to compare with")  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        subprocess.run(["git", "-C", str(ROOT), "archive", "-o", str(archive), base, "protos"], check=True)  # noqa: S603, S607
        shutil.unpack_archive(archive, folder, filter="data")
        # Compiled as ours is, so that only the contracts can differ.
        shutil.copy(ROOT / "protos" / "compile.py", f"{folder}/protos/compile.py")
        subprocess.run([sys.executable, f"{folder}/protos/compile.py"], check=True)  # noqa: S603
        old = f"{folder}/gen/baton/descriptors.binpb"
        buf = Path(sys.executable).parent / "buf"
        sys.exit(subprocess.run([buf, "breaking", str(NEW), "--against", old], cwd=ROOT, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
