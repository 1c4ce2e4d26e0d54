# Splits the lock for one distribution, into LOCK_FOLDER: requirements.txt (from the index, with hashes) and source.txt
# (folders of this repository). Arguments: the distribution, "torch" if it runs models, then more options of `uv export`.
set -eu
distribution=$1
shift
if [ "${1-}" = torch ]; then
    shift
    # What the layer of torch holds already is not installed twice.
    set -- --extra ml $(sed -n '/^[a-z]/{s/==.*//;s/^/--no-emit-package /;p}' requirements-torch.txt) "$@"
fi
folder=${LOCK_FOLDER:-/lock}
PATH=/opt/tools/bin:$PATH
mkdir -p "$folder"
uv export --quiet --frozen --offline --no-dev --no-editable --no-header --no-annotate --package "$distribution" "$@" \
    --output-file "$folder/all.txt"
grep '^\./' "$folder/all.txt" > "$folder/source.txt"
sed '/^\.\//d' "$folder/all.txt" > "$folder/requirements.txt"
