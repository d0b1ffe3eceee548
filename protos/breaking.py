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


def git(*arguments: str, check: bool = True) -> str:
    """What git answers; ends the check, with git's own words, when it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if check and done.returncode != 0:
        sys.exit(f"breaking: git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def base_commit() -> str | None:
    """The commit to compare with, or None at the first commit of all."""
    head = git("rev-parse", "HEAD")
    for main in ("origin/main", "main"):
        base = git("merge-base", main, "HEAD", check=False)
        if base and base != head:
            return base
    if git("rev-parse", "--is-shallow-repository") == "true":
        sys.exit("breaking: this clone is shallow, and lacks the commit to compare with: run git fetch --unshallow")
    return git("rev-parse", "--verify", "--quiet", "HEAD^", check=False) or None


def main() -> None:
    base = base_commit()
    if base is None or not git("ls-tree", base, "protos/compile.py"):
        print("breaking: there is no earlier contract to compare with")  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        git("archive", "-o", str(archive), base, "protos")
        shutil.unpack_archive(archive, folder, filter="data")
        # Compiled as ours is, so that only the contracts can differ.
        shutil.copy(ROOT / "protos" / "compile.py", f"{folder}/protos/compile.py")
        subprocess.run([sys.executable, f"{folder}/protos/compile.py"], check=True)  # noqa: S603
        old = f"{folder}/gen/baton/descriptors.binpb"
        buf = Path(sys.executable).parent / "buf"
        sys.exit(subprocess.run([buf, "breaking", str(NEW), "--against", old], cwd=ROOT, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
