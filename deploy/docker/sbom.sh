#!/bin/sh
# Writes what an image holds: sbom.sh IMAGE FOLDER
# FOLDER gets python.cdx.json (CycloneDX) and debian.tsv. CONTAINER is docker or podman with its
# options; CYCLONEDX the command cyclonedx-py of the package cyclonedx-bom.
set -eu
image=$1
folder=$2
mkdir -p "$folder"
run() {
    command=$1
    shift
    ${CONTAINER:-docker} run --rm --network none --read-only --entrypoint "$command" "$image" "$@"
}
# The image says what it holds, so that nothing has to be installed in it.
run python -c '
from importlib.metadata import distributions
for one in sorted(distributions(), key=lambda one: one.name):
    print(f"{one.name}=={one.version}")
' >"$folder/requirements.txt"
${CYCLONEDX:-cyclonedx-py} requirements "$folder/requirements.txt" --of JSON -o "$folder/python.cdx.json"
run dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\n' >"$folder/debian.tsv"
