#!/usr/bin/env bash
# Trains everything that ships, from nothing: bash scripts/train_release.sh [DATA]
# DATA (default ../shared/data) holds shenzhen/{images,masks} and kaggle/. Stopped, it goes on where it was; a model that is
# in models/ already is kept, so move the shipped ones away first. On 2 cores with AMX: about 30 min for the U-Net and 31 min
# for each of the five Mask R-CNNs. What was done stands in models/*.yaml and in the notes of every weights file.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:-../shared/data}
python=.venv/bin/python
export TF_SET_ONEDNN_FPMATH_MODE=BF16 # convolutions in bfloat16 where the processor has them: half the time

[ -d runs/phantoms ] || "$python" scripts/make_phantoms.py --out runs/phantoms --count 60 --seed 1000
[ -f models/unet/efficientnetb0.weights.h5 ] ||
  "$python" scripts/train_unet.py --data "$data/shenzhen" runs/phantoms --epochs 10 --run runs/unet --out models/unet/efficientnetb0.weights.h5
[ -f runs/drawn/left_out.csv ] ||
  "$python" scripts/select_drawn.py --data "$data/shenzhen" --unet models/unet/efficientnetb0.weights.h5 --out runs/drawn
"$python" create_dataset.py --src "$data/kaggle" --out data/dataset
"$python" train.py --config lungs_small_start --out runs/start
for member in 1 2 3 4 5; do
  "$python" train.py --config lungs_small --member "$member" --weights "runs/start/lungs_small_start_$member.weights.h5"
done
"$python" scripts/evaluate.py --weights models/lungs_small_?.weights.h5 --data "$data/jsrt"
