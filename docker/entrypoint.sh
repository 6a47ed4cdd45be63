#!/bin/sh
# With arguments: the command line, `entrypoint demo`. Without: make a party folder if there is none, then serve it.
#
#   PARTY_NAME      what specifications call this party; needed for a folder that is still empty
#   PARTY_ADDRESS   HOST:PORT as peers call it, for a folder that is still empty; without it peers cannot call
#   PARTY_FOLDER    its folder, /party by default
#   PARTY_SETTINGS  a party.toml that replaces the one in the folder at each start, if such a file is there
set -eu
umask 077

if [ "$#" -gt 0 ]; then
    exec vfl "$@"
fi

folder=${PARTY_FOLDER:-/party}
settings=${PARTY_SETTINGS:-/etc/party/party.toml}

if [ ! -e "$folder/party.toml" ]; then
    vfl party init "$folder" --name "${PARTY_NAME:?PARTY_NAME is not set: name the party that $folder is to become}" \
        --address "${PARTY_ADDRESS:-}"
fi

if [ -e "$settings" ]; then
    # Beside it first, then renamed: an interrupted start leaves the old file whole.
    cp "$settings" "$folder/party.toml.new"
    mv "$folder/party.toml.new" "$folder/party.toml"
fi

exec vfl party serve "$folder"
