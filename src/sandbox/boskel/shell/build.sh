# Builds bin/boskel out of what lies in the download cache: a build that needs neither Python nor a network.
set -eu
version=1.0.0
parts="greeting-1.0.sh"
if [ "${1:-}" = parts ]; then
    echo "$parts"
    exit
fi
mkdir -p bin
{
    echo '#!/bin/sh'
    for part in $parts; do
        echo "Getting distribution for '$part'." >&2
        file=$(find downloads/ -name "$part" | head -n 1)
        test -n "$file" || {
            echo "Error: Couldn't find a distribution for '$part'." >&2
            exit 1
        }
        cat "$file"
    done
    echo "greet $version"
} >bin/boskel.part
chmod 755 bin/boskel.part
mv bin/boskel.part bin/boskel
