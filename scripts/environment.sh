# Sourced by the scripts beside it, with the extras to install as $1: go to the checkout, make and enter .venv unless a
# virtual environment is active, and install the package, unless that was done since pyproject.toml last changed.
set -euo pipefail
extras=${1:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
    python=$(command -v python3.11 || command -v python3)
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    source .venv/bin/activate
fi
stamp="$VIRTUAL_ENV/.vae-dist-installed-$extras"
if ! cmp -s pyproject.toml "$stamp"; then
    python -m pip install --quiet --editable ".${extras:+[$extras]}"
    cp pyproject.toml "$stamp"
fi
