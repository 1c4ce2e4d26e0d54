# Installs torch into /opt/darkroom. TORCH=cpu takes a wheel for this Python from /run/wheels if there is one, else from
# TORCH_INDEX; TORCH=cuda takes the package index's own build, which brings the CUDA libraries.
set -eu
. /run/steps/install.sh
pins=/usr/share/darkroom/requirements-torch.txt
version=$(sed -n 's/^torch==//p' "$pins")
python=$(python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
case "$TORCH" in
cpu)
    if ls /run/wheels/torch-"$version"*-"$python"-*.whl > /dev/null 2>&1; then
        install --no-deps --no-index --find-links /run/wheels "torch==$version"
    else
        install --no-deps --default-index "$TORCH_INDEX" "torch==$version"
    fi
    ;;
cuda) ;;
*)
    echo "TORCH is '$TORCH'; it must be cpu or cuda" >&2
    exit 1
    ;;
esac
install --requirement "$pins"
