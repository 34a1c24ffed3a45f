#!/usr/bin/env bash
# The light recipe on the paper's fold 0 of the GlaS training images, with and without erasing.
#
#     benchmarks/glas_fold0.sh GLAS OUT [PYTHON]
#
# GLAS is the official folder; OUT/passes_<n>_seed_<s>/evaluation.json holds the figures, seconds.txt the time of training.
set -euo pipefail
glas=$1 out=$2 python=${3:-python}
cd "$(dirname "$0")/.."
configs=bundles/glas_minmax_entropy/configs
light="'configs/data/light.json','configs/trunks/efficientnet_lite0.json'"
export OMP_WAIT_POLICY=PASSIVE
for seed in 0 1; do for passes in 4 0; do
    run="$out/passes_${passes}_seed_$seed"
    settings=(--dataset_dir "$glas" --output_dir "$run" --passes "$passes" --seed "$seed")
    start=$SECONDS
    "$python" -m monai.bundle run --config_file "['$configs/train.json',$light]" "${settings[@]}"
    seconds=$((SECONDS - start))
    "$python" -m monai.bundle run --config_file "['$configs/train.json',$light,'$configs/evaluate.json']" "${settings[@]}"
    echo "$seconds" >"$run/seconds.txt"
done; done
