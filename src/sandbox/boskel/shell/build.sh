# Builds bin/boskel out of what lies in the download cache: a build that needs neither Python nor a network.
set -eu
version=1.0.0
mkdir -p bin
{
    echo '#!/bin/sh'
    for part in greeting-1.0.sh; do
        echo "Getting distribution for '$part'." >&2
        test -f "downloads/dist/$part" || {
            echo "Error: Couldn't find a distribution for '$part'." >&2
            exit 1
        }
        cat "downloads/dist/$part"
    done
    echo "greet $version"
} >bin/boskel.part
chmod 755 bin/boskel.part
mv bin/boskel.part bin/boskel
