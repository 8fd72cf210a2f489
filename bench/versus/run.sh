#!/bin/sh
# Measures the original and execnet into target/versus.jsonl: run.sh [WORD...], only the scripts
# whose name contains a WORD. RUNS=3 takes three times as many samples as the quick default.
set -e
cd "$(dirname "$0")/../.."
sh bench/versus/setup.sh
# The floors come from the same program as ours.
[ -n "$FLOORS" ] || FLOORS=$(cargo bench -q --bench budgets --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*budgets[^"]*\)".*/\1/p' | tail -1)
export FLOORS
unset PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED
out=$PWD/target/versus.jsonl
python=$PWD/target/versus/bin/python
[ $# -gt 0 ] || : > "$out"
here=$PWD/bench/versus
for script in connect calls bulk idle fanout; do
    for word in "${@:-$script}"; do
        case $script in *"$word"*)
            echo "measuring the others: $script" >&2
            # In / a child finds no module of ours by chance: all must come from the parent.
            (cd / && exec "$python" -B "$here/$script.py") >> "$out" ||
                echo "versus: $script failed" >&2
        esac
    done
done
