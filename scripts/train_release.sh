#!/usr/bin/env bash
# Trains everything that ships, from nothing: bash scripts/train_release.sh [DATA]
# DATA (default ../shared/data) holds shenzhen/, openist/, wingspan/, v7_children/, v7_bedside/ and kaggle/. Stopped, it goes on
# where it was; a model that is in models/ already is kept, so move the shipped ones away first. What was done stands in
# models/*.yaml and in the notes of every weights file; how long it takes, in MODEL_CARD.md.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:-../shared/data}
python=.venv/bin/python
held_out=configs/held_out.csv
opaque=("$data/v7_children" "$data/v7_bedside")
export TF_SET_ONEDNN_FPMATH_MODE=BF16 # of the U-Nets, on a processor with AMX: half the time; train.py chooses for itself

# From healthy lungs: a first U-Net, the films that it labels, and two stages of the five networks.
[ -d runs/phantoms ] || "$python" scripts/make_phantoms.py --out runs/phantoms --count 60 --seed 1000
[ -f runs/first_unet.weights.h5 ] ||
  "$python" scripts/train_unet.py --data "$data/shenzhen" runs/phantoms --epochs 10 --run runs/first_unet --out runs/first_unet.weights.h5
[ -f runs/drawn/left_out.csv ] ||
  "$python" scripts/select_drawn.py --data "$data/shenzhen" --unet runs/first_unet.weights.h5 --out runs/drawn
"$python" create_dataset.py --src "$data/kaggle" --unet runs/first_unet.weights.h5 --out data/dataset
"$python" train.py --config lungs_small_start --out runs/start
for member in 1 2 3 4 5; do
  "$python" train.py --config lungs_small --member "$member" --weights "runs/start/lungs_small_start_$member.weights.h5" --out runs/second
done

# From ill lungs. Hearts first: of drawings that hold the heart, what may be heart is not learnt.
ill=runs/ill
"$python" scripts/with_masks.py --set "$data/shenzhen" --masks masks_completed --out "$ill/sets/shenzhen"
"$python" scripts/with_masks.py --set "$data/wingspan" --masks heart --out "$ill/heart_sets/wingspan"
[ -f "$ill/heart.weights.h5" ] ||
  "$python" scripts/train_unet.py --data "$ill/heart_sets/wingspan" --held-out "$held_out" --weights runs/first_unet.weights.h5 \
    --epochs 10 --beside 0.2 --ill 0.2 --flip 0 --run "$ill/unet_heart" --out "$ill/heart.weights.h5"
"$python" scripts/find_hearts.py --unet "$ill/heart.weights.h5" --data "$data/v7_bedside" --held-out "$held_out" --out "$ill/hearts"
[ -f models/unet/efficientnetb0.weights.h5 ] ||
  "$python" scripts/train_unet.py --data "$ill/sets/shenzhen" "$data/openist" "$data/wingspan" "${opaque[@]}" --held-out "$held_out" \
    --hearts "$ill/hearts" --weights runs/first_unet.weights.h5 --epochs 18 --learning-rate 0.0007 --beside 0.3 --ill 0.4 \
    --per-epoch shenzhen=110 openist=80 wingspan=60 v7_children=160 v7_bedside=90 --choose-by 40 \
    --run "$ill/unet_lungs" --out models/unet/efficientnetb0.weights.h5
compose=("$python" scripts/compose_labels.py --unet models/unet/efficientnetb0.weights.h5 --held-out "$held_out" --out "$ill/composed")
"${compose[@]}" --data "$data/v7_children"
"${compose[@]}" --data "$data/v7_bedside" --heart-unet "$ill/heart.weights.h5"
for member in 1 2 3 4 5; do
  "$python" train.py --config lungs_ill --set name=lungs_small --member "$member" --weights "runs/second/lungs_small_$member.weights.h5"
done

# What tells a failure is learnt from what the networks predict, those of before and after; bag.max_risk is set by hand.
sets=("$data/openist" "$ill/sets/shenzhen" "$data/wingspan" "${opaque[@]}")
for networks in runs/second models; do
  "$python" scripts/collect_predictions.py --weights "$networks"/lungs_small_?.weights.h5 --data "${sets[@]}" --held-out "$held_out" \
    --out "$ill/predictions/${networks##*/}"
done
"$python" scripts/fit_risk.py --predictions "$ill/predictions/models" "$ill/predictions/second" --good 0.85 --write
"$python" scripts/evaluate.py --weights models/lungs_small_?.weights.h5 --held-out "$held_out" --data "${sets[@]}"
"$python" scripts/evaluate.py --weights models/lungs_small_?.weights.h5 --data "$data/jsrt_512"
