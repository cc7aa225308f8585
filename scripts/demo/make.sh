#!/bin/sh
# Trains the demo model into demo/ and writes the greedy fixture that the engine is compared with.
set -eu
cd "$(dirname "$0")"
/usr/bin/python3 -B train.py --out ../../demo "$@"
/usr/bin/python3 -B generate.py --demo ../../demo --fixture ../../tests/fixtures/demo-greedy.json
