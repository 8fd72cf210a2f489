#!/bin/sh
# A Python environment under target/versus with the programs that we are compared to.
set -e
cd "$(dirname "$0")/../.."
venv=target/versus
if ! python3 -c 'import ensurepip' 2>/dev/null; then
    echo "installing python3-venv"
    apt-get install -y -q python3-venv
fi
[ -x $venv/bin/python ] || python3 -m venv $venv
$venv/bin/python -c 'import execnet, mitogen' 2>/dev/null ||
    $venv/bin/python -m pip install -q --disable-pip-version-check mitogen==0.3.54 execnet==2.1.2
# Children shall load compiled modules, as users' do.
PYTHONDONTWRITEBYTECODE= $venv/bin/python -m compileall -q $venv/lib || true
