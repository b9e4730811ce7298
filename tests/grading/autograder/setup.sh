#!/usr/bin/env bash
# Gradescope runs this as root, with network access, to build its image: Python, packages, data.
# Students' code may read the environment, but not the suite, which contains the answers.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update
for version in 3.13 3.12 3.11; do
    apt-get install -y "python$version" "python$version-venv" && break
done
"python$version" -m venv /opt/suite-venv
/opt/suite-venv/bin/python -m pip install --disable-pip-version-check -r /autograder/source/requirements.txt
cd /autograder/source
PYTHONPATH=. /opt/suite-venv/bin/python -m mflib.data ml-100k
chmod 700 /autograder/source
