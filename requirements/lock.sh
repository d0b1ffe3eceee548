#!/bin/sh
# Writes the lock files anew: names, versions and hashes, and no download host. Run by `make lock`.
set -eu
lock() { "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --prerelease=if-necessary-or-explicit "$@"; }
lock requirements/bootstrap.in -o requirements/bootstrap.lock
lock pyproject.toml --extra embedded --extra build -o requirements/run.lock
lock pyproject.toml --all-extras -c requirements/run.lock -o requirements/dev.lock
